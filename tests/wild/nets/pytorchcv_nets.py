"""pytorchcv: one small network of each family."""

from __future__ import annotations

from typing import Any

import torch

from tests.wild.network import Wild, changed, image, made, net


def _condensed(model: Any) -> None:
    """CondenseNet's channels in some order: without trained weights every index is the first."""
    for name, indices in model.named_buffers():
        if name.endswith(".index"):
            width = 2 * len(indices) if name.startswith("output") else len(indices)
            indices.copy_(torch.randperm(width)[: len(indices)])


def _net(name: str, *blocks: str, outside: tuple[str, ...] = (), size: int = 224) -> Wild:
    maker = made("pytorchcv.model_provider.get_model", name, pretrained=False)
    if name.startswith("condensenet"):
        maker = changed(maker, _condensed)
    return net(f"pytorchcv/{name}", maker, image(2, 3, size, size), *blocks, outside=outside)


NETS = (
    _net("alexnet", "AlexConv"),
    _net("vgg11", "ConvBlock"),
    _net("bninception", "InceptionBlock", "ReductionBlock"),
    _net("resnet10", "ResUnit"),
    _net("preresnet10", "PreResUnit"),
    _net("resnext14_16x4d", "ResNeXtUnit"),
    _net("seresnet10", "SEResUnit"),
    _net("senet16", "SENetUnit"),
    _net("ibn_resnet50", "IBNResUnit"),
    _net("airnet50_1x64d_r2", "AirUnit"),
    _net("scnet50", "ScUnit"),
    _net("regnetx002", "RegNetUnit"),
    _net("diaresnet10", "DIAResUnit"),
    _net("diracnet18v2", "DiracConv"),
    _net("sharesnet18", "ShaResUnit"),
    _net("densenet121", "DenseUnit"),
    _net("condensenet74_c4_g4", "CondenseUnit"),
    _net("sparsenet121", "SparseBlock"),
    _net("peleenet", "DenseBlock"),
    _net("drnc26", "DRNUnit"),
    _net("dpn68", "DPNUnit"),
    _net("darknet_tiny", "ConvBlock"),
    _net("darknet53", "DarkUnit"),
    _net("bagnet9", "BagNetUnit"),
    _net("channelnet", "ChannetUnit"),
    _net("isqrtcovresnet18", "ResUnit"),
    _net("revnet38", "RevUnit"),
    _net("dla34", "DLAResBlock"),
    _net("msdnet22"),
    _net("fishnet99"),
    _net("espnetv2_wd2", "ESPBlock", "DownsampleBlock"),
    _net("dicenet_wd5"),
    _net("hrnet_w18_small_v1", "ResUnit"),
    _net("vovnet27s", "VoVUnit"),
    _net("selecsls42", "SelecSLSUnit"),
    _net("hardnet39ds", "HarDUnit"),
    _net("squeezenet_v1_0", "FireUnit"),
    _net("sqnxt23_w1", "SqnxtUnit"),
    _net("shufflenet_g1_wd4", "ShuffleUnit"),
    _net("shufflenetv2_wd2", "ShuffleUnit"),
    _net("menet108_8x1_g3", "MEUnit"),
    _net("mobilenet_wd4", "DwsConvBlock"),
    _net("mobilenetv2_wd4", "LinearBottleneck"),
    _net("mobilenetv3_small_wd2", "MobileNetV3Unit"),
    _net("igcv3_wd4", "InvResUnit"),
    _net("ghostnet", "GhostUnit"),
    _net("mnasnet_b1", "DwsExpSEResUnit"),
    _net("darts", "DartsUnit"),
    _net("proxylessnas_cpu", "ProxylessUnit"),
    _net("fbnet_cb", "FBNetUnit"),
    _net("nasnet_4a1056"),
    _net("inceptionresnetv1", size=299),
    _net("efficientnet_b0", "EffiInvResUnit", "EffiDwsConvUnit"),
    _net("mixnet_s", "MixUnit"),
    _net("resnesta18", "ResNeStAUnit"),
    _net("tresnet_m", "TResUnit"),
    _net("octresnet10_ad2", "OctResUnit"),
    _net("resattnet56"),
)
