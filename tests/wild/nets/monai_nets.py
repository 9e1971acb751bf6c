"""MONAI: medical images of two and three dimensions."""

from __future__ import annotations

from typing import Any

from tests.wild.network import Maker, Wild, image, integers, made, net, several


def _net(
    label: str, kind: str, example: Maker, *blocks: str, dims: int = 2, **options: Any
) -> Wild:
    maker = made(f"monai.networks.nets.{kind}", spatial_dims=dims, **options)
    return net(f"monai/{label}", maker, example, *blocks)


def _shaped(label: str, example: Maker, *blocks: str, **options: Any) -> Wild:
    """Of those whose dimensions come from an input shape."""
    maker = made(f"monai.networks.nets.{label}", **options)
    return net(f"monai/{label}", maker, example, *blocks)


_ONE = image(2, 1, 64, 64)
_SMALL = image(2, 1, 32, 32)
_IN = {"in_channels": 1, "out_channels": 2}
_VQ = {"num_embeddings": 16, "embedding_dim": 8, "num_res_layers": 2, "num_res_channels": (8, 16)}
_KL = {"num_res_blocks": (1, 1), "channels": (8, 16), "attention_levels": (False, False)}
_NO_ATTENTION = {"with_encoder_nonlocal_attn": False, "with_decoder_nonlocal_attn": False}

NETS = (
    _net("UNet_residual", "UNet", _ONE, "ResidualUnit", **_IN, channels=(8, 16, 32, 64),
         strides=(2, 2, 2), num_res_units=2),
    _net("UNet_plain", "UNet", _ONE, **_IN, channels=(8, 16, 32, 64), strides=(2, 2, 2)),
    _net("UNet_3d", "UNet", image(2, 1, 32, 32, 32), "ResidualUnit", dims=3, **_IN,
         channels=(8, 16, 32), strides=(2, 2), num_res_units=2),
    _net("BasicUNet", "BasicUNet", _ONE, **_IN, features=(8, 8, 16, 16, 32, 8)),
    _net("BasicUNetPlusPlus", "BasicUNetPlusPlus", _ONE, **_IN, features=(8, 8, 16, 16, 32, 8)),
    _net("AttentionUnet", "AttentionUnet", _ONE, **_IN, channels=(8, 16, 32), strides=(2, 2)),
    _net("DynUNet", "DynUNet", _ONE, **_IN, kernel_size=[3, 3, 3, 3], strides=[1, 2, 2, 2],
         upsample_kernel_size=[2, 2, 2], filters=(8, 16, 32, 32), res_block=True),
    _net("FlexibleUNet", "FlexibleUNet", image(2, 3, 64, 64), "ResNetBlock", "UpCat",
         in_channels=3, out_channels=2, backbone="resnet18"),
    _net("HighResNet", "HighResNet", image(1, 1, 16, 16, 16), "HighResBlock", dims=3, **_IN),
    _net("SegResNet", "SegResNet", _ONE, "ResBlock", **_IN),
    _net("SegResNet_3d", "SegResNet", image(1, 1, 32, 32, 32), "ResBlock", dims=3, **_IN),
    _net("SegResNetDS", "SegResNetDS", _ONE, "SegResBlock", **_IN, init_filters=8),
    _net("SegResNetVAE", "SegResNetVAE", _SMALL, "ResBlock", **_IN, input_image_size=(32, 32),
         vae_nz=16),
    _net("VNet", "VNet", image(1, 1, 32, 32, 32), "DownTransition", "UpTransition", dims=3, **_IN),
    _net("VoxelMorphUNet", "VoxelMorphUNet", image(2, 2, 64, 64), in_channels=2,
         unet_out_channels=8, channels=(8, 8, 8, 8, 8, 8), final_conv_channels=(8, 8)),
    _net("VoxelMorph", "VoxelMorph", several(image(1, 1, 32, 32, 32), image(1, 1, 32, 32, 32)),
         dims=3),
    _net("VQVAE", "VQVAE", _SMALL, "VQVAEResidualUnit", in_channels=1, out_channels=1,
         channels=(8, 16), downsample_parameters=((2, 4, 1, 1),) * 2,
         upsample_parameters=((2, 4, 1, 1, 0),) * 2, **_VQ),
    _net("AutoencoderKL", "AutoencoderKL", _SMALL, "AEKLResBlock", in_channels=1, out_channels=1,
         latent_channels=3, norm_num_groups=8, **_KL, **_NO_ATTENTION),
    _net("DiffusionModelUNet", "DiffusionModelUNet", several(_SMALL, integers(9, 2)),
         "DiffusionUNetResnetBlock", in_channels=1, out_channels=1, num_res_blocks=1,
         channels=(8, 16), attention_levels=(False, True), norm_num_groups=8, num_head_channels=8),
    _net("ControlNet", "ControlNet", several(_SMALL, integers(9, 2), _SMALL),
         "DiffusionUNetResnetBlock", in_channels=1, num_res_blocks=1, channels=(8, 16),
         attention_levels=(False, False), norm_num_groups=8, conditioning_embedding_in_channels=1,
         conditioning_embedding_num_channels=(8,)),
    _net("AutoEncoder", "AutoEncoder", _SMALL, "ResidualUnit", in_channels=1, out_channels=1,
         channels=(8, 16, 32), strides=(2, 2, 2), num_res_units=1),
    _net("VarAutoEncoder", "VarAutoEncoder", _SMALL, "ResidualUnit", in_shape=(1, 32, 32),
         out_channels=1, latent_size=4, channels=(8, 16), strides=(2, 2), num_res_units=1),
    _net("MedNeXt", "MedNeXt", _ONE, "MedNeXtBlock", "MedNeXtDownBlock", "MedNeXtUpBlock",
         in_channels=1, init_filters=8, kernel_size=3),
    _net("RegUNet", "RegUNet", image(2, 2, 32, 32), in_channels=2, num_channel_initial=4, depth=3),
    _net("LocalNet", "LocalNet", image(2, 2, 32, 32), in_channels=2, num_channel_initial=4,
         extract_levels=(0, 1, 2)),
    _net("AHNet", "AHNet", image(2, 3, 128, 128), in_channels=3, out_channels=2,
         layers=(1, 1, 1, 1)),
    _net("SEResNet50", "SEResNet50", image(2, 3, 64, 64), "SEResNetBottleneck", in_channels=3,
         num_classes=5),
    _net("DenseNet121", "DenseNet121", _ONE, "_DenseLayer", **_IN),
    _net("resnet18_3d", "resnet18", image(2, 1, 32, 32, 32), "ResNetBlock", dims=3,
         n_input_channels=1, num_classes=5),
    _shaped("EfficientNetBN", image(2, 3, 64, 64), "MBConvBlock", model_name="efficientnet-b0",
            pretrained=False, in_channels=3),
    _shaped("Quicknat", _ONE, num_classes=3, num_channels=1, num_filters=8, se_block=None),
    _shaped("DAF3D", image(1, 1, 32, 32, 32), in_channels=1, out_channels=2),
    _shaped("Regressor", _SMALL, "ResidualUnit", in_shape=(1, 32, 32), out_shape=(2,),
            channels=(8, 16, 32), strides=(2, 2, 2), num_res_units=2),
    _shaped("Discriminator", _SMALL, in_shape=(1, 32, 32), channels=(8, 16, 32),
            strides=(2, 2, 2), num_res_units=0),
    _shaped("Generator", image(2, 8), "ResidualUnit", latent_shape=(8,), start_shape=(8, 4, 4),
            channels=(16, 8, 1), strides=(2, 2, 2), num_res_units=2),
    _net("PatchDiscriminator", "PatchDiscriminator", image(2, 3, 64, 64), channels=8,
         in_channels=3, num_layers_d=3),
    _net("SPADENet", "SPADENet", several(image(2, 3, 32, 32)), "SPADENetResBlock", in_channels=1,
         out_channels=1, label_nc=3, input_shape=(32, 32), channels=[8, 16], z_dim=8,
         is_vae=False),
    _shaped("MILModel", image(1, 3, 3, 64, 64), "Bottleneck", num_classes=2, pretrained=False,
            mil_mode="mean"),
    _shaped("HoVerNet", image(1, 3, 256, 256), mode="fast",
            in_channels=3, out_classes=0),
    _shaped("UNETR", image(1, 1, 32, 32, 32), "UnetResBlock", **_IN, img_size=(32, 32, 32),
            feature_size=8, hidden_size=32, mlp_dim=64, num_heads=4),
)  # fmt: skip
