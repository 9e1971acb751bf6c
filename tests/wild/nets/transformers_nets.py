"""transformers: every model type that is a convolutional network, and some around one."""

from __future__ import annotations

from typing import Any

from tests.wild.network import Maker, Wild, configured, image, made, net

IMAGES = image(2, 3, 64, 64)


def _net(
    label: str, model: str, config: str, *blocks: str, example: Maker = IMAGES,
    **options: Any,
) -> Wild:  # fmt: skip
    maker = configured(f"transformers.{model}", f"transformers.{config}", **options)
    return net(f"transformers/{label}", maker, example, *blocks)


_FOUR = {"hidden_sizes": [8, 16, 32, 64], "depths": [2, 2, 2, 2]}
_WIDE = {"hidden_sizes": [16, 32, 64, 64], "depths": [2, 2, 2, 2]}
_RESNET = {"embedding_size": 8, **_WIDE}
_BIT = {"embedding_size": 32, "hidden_sizes": [32, 32, 64, 64], "depths": [2, 2, 2, 2],
        "num_groups": 8}  # fmt: skip
_PYRAMID = {**_FOUR, "out_features": ["stage1", "stage2", "stage3", "stage4"]}

NETS = (
    _net("resnet", "ResNetForImageClassification", "ResNetConfig", "ResNetBasicLayer",
         embedding_size=8, **_FOUR, layer_type="basic"),
    _net("resnet-model", "ResNetModel", "ResNetConfig", "ResNetBottleNeckLayer", **_RESNET),
    _net("resnet-backbone", "ResNetBackbone", "ResNetConfig", "ResNetBottleNeckLayer", **_RESNET,
         out_features=["stage2", "stage4"]),
    _net("rt_detr_resnet", "RTDetrResNetBackbone", "RTDetrResNetConfig",
         "RTDetrResNetBottleNeckLayer", **_RESNET),
    _net("regnet", "RegNetForImageClassification", "RegNetConfig", "RegNetYLayer", **_RESNET,
         groups_width=8),
    _net("regnet-x", "RegNetModel", "RegNetConfig", "RegNetXLayer", **_RESNET, groups_width=8,
         layer_type="x"),
    _net("convnext", "ConvNextForImageClassification", "ConvNextConfig", "ConvNextLayer", **_FOUR),
    _net("convnext-backbone", "ConvNextBackbone", "ConvNextConfig", "ConvNextLayer", **_FOUR,
         out_features=["stage2", "stage4"]),
    _net("convnextv2", "ConvNextV2ForImageClassification", "ConvNextV2Config", "ConvNextV2Layer",
         **_FOUR),
    _net("dinov3_convnext", "DINOv3ConvNextModel", "DINOv3ConvNextConfig", "DINOv3ConvNextLayer",
         **_FOUR),
    _net("mobilenet_v1", "MobileNetV1ForImageClassification", "MobileNetV1Config",
         depth_multiplier=0.25),
    _net("mobilenet_v2", "MobileNetV2ForImageClassification", "MobileNetV2Config",
         "MobileNetV2InvertedResidual", depth_multiplier=0.35),
    _net("mobilenet_v2-segmentation", "MobileNetV2ForSemanticSegmentation", "MobileNetV2Config",
         "MobileNetV2InvertedResidual", depth_multiplier=0.35),
    _net("efficientnet", "EfficientNetForImageClassification", "EfficientNetConfig",
         "EfficientNetBlock", width_coefficient=0.35, depth_coefficient=0.5, hidden_dim=448),
    _net("bit", "BitForImageClassification", "BitConfig", "BitPreActivationBottleneckLayer",
         **_BIT),
    _net("bit-backbone", "BitBackbone", "BitConfig", "BitBottleneckLayer", **_BIT,
         layer_type="bottleneck"),
    _net("poolformer", "PoolFormerForImageClassification", "PoolFormerConfig", "PoolFormerLayer",
         **_FOUR),
    _net("focalnet", "FocalNetForImageClassification", "FocalNetConfig", "FocalNetLayer",
         embed_dim=8, depths=[2, 2, 2, 2], image_size=64),
    _net("textnet", "TextNetForImageClassification", "TextNetConfig", "TextNetRepConvLayer"),
    _net("textnet-backbone", "TextNetBackbone", "TextNetConfig", "TextNetRepConvLayer"),
    _net("hgnet_v2", "HGNetV2ForImageClassification", "HGNetV2Config", "HGNetV2BasicLayer"),
    _net("pp_lcnet", "PPLCNetForImageClassification", "PPLCNetConfig",
         "PPLCNetDepthwiseSeparableConvLayer"),
    _net("pp_lcnet_v3", "PPLCNetV3Backbone", "PPLCNetV3Config",
         "PPLCNetV3DepthwiseSeparableConvLayer"),
    _net("superpoint", "SuperPointForKeypointDetection", "SuperPointConfig",
         example=image(1, 3, 64, 64), encoder_hidden_sizes=[16, 16, 32, 32],
         decoder_hidden_size=32, descriptor_decoder_dim=32),
    _net("encodec", "EncodecModel", "EncodecConfig", "EncodecResnetBlock",
         example=image(1, 1, 9600), num_filters=4, hidden_size=16, codebook_size=16,
         codebook_dim=16),
    _net("dac", "DacModel", "DacConfig", "DacResidualUnit", example=image(1, 1, 1024),
         encoder_hidden_size=4, decoder_hidden_size=32, hidden_size=64),
    _net("univnet", "UnivNetModel", "UnivNetConfig", example=image(1, 16, 100),
         model_hidden_channels=8, kernel_predictor_hidden_channels=8, kernel_predictor_num_blocks=1,
         model_in_channels=8, num_mel_bins=100),
    _net("speecht5_hifigan", "SpeechT5HifiGan", "SpeechT5HifiGanConfig", "HifiGanResidualBlock",
         example=image(2, 20, 80), upsample_initial_channel=32),
    _net("fastspeech2_hifigan", "FastSpeech2ConformerHifiGan", "FastSpeech2ConformerHifiGanConfig",
         "HifiGanResidualBlock", example=image(2, 20, 80), upsample_initial_channel=32),
    net("transformers/upernet-convnext",
        configured("transformers.UperNetForSemanticSegmentation", "transformers.UperNetConfig",
                   backbone_config=made("transformers.ConvNextConfig", **_PYRAMID),
                   hidden_size=16, auxiliary_channels=8, auxiliary_in_channels=32, num_labels=4),
        image(2, 3, 64, 64), "ConvNextLayer"),
    net("transformers/detr-resnet",
        configured("transformers.DetrModel", "transformers.DetrConfig",
                   backbone_config=made("transformers.ResNetConfig", embedding_size=8,
                                        hidden_sizes=[16, 32, 64, 64], depths=[2, 2, 2, 2],
                                        out_features=["stage4"]),
                   use_timm_backbone=False, backbone=None, d_model=16, encoder_layers=1,
                   decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
                   encoder_attention_heads=2, decoder_attention_heads=2),
        image(1, 3, 64, 64), "ResNetBottleNeckLayer"),
    _net("timm_wrapper", "TimmWrapperForImageClassification", "TimmWrapperConfig", "BasicBlock",
         architecture="resnet18", do_pooling=True),
    _net("timm_backbone", "TimmBackbone", "TimmBackboneConfig", "BasicBlock", backbone="resnet18",
         use_pretrained_backbone=False),
    _net("mobilevit", "MobileViTForImageClassification", "MobileViTConfig",
         hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 16, 16, 24, 32, 40, 64]),
    _net("mobilevitv2", "MobileViTV2ForImageClassification", "MobileViTV2Config",
         width_multiplier=0.25),
    _net("swiftformer", "SwiftFormerForImageClassification", "SwiftFormerConfig",
         "SwiftFormerConvEncoder", "SwiftFormerEncoderBlock", embed_dims=[16, 16, 32, 64],
         depths=[2, 2, 2, 2]),
)  # fmt: skip
