"""The block modules of every timm and torchvision family, from the class definitions of each.

This is the yardstick of discovery, so it is written down from the architectures themselves: the
class (or classes) that a family repeats, looked up by name on a model instance. Discovery never
sees it. Stems, heads and transitions are no blocks, unless they are made of the block class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

Kind = Literal["cnn", "hybrid", "video", "segmentation", "backbone"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the blocks of a family are called: class names, outermost first where they nest."""

    classes: tuple[str, ...]
    kind: Kind = "cnn"
    #: Modules whose path starts with one of these are stem or head, whatever their class.
    outside: tuple[str, ...] = ()
    keep: Callable[[str, nn.Module], bool] | None = None

    def blocks(self, model: nn.Module) -> list[str]:
        """Paths of the block modules of one model, in registration order."""
        found: list[str] = []
        for path, module in model.named_modules():
            if type(module).__name__ not in self.classes:
                continue
            if any(path == o or path.startswith(o + ".") for o in self.outside):
                continue
            if any(path.startswith(p + ".") for p in found):
                continue
            if self.keep is None or self.keep(path, module):
                found.append(path)
        return found


def _spatial(path: str, module: nn.Module) -> bool:
    """A bare 1x1 convolution with norm and activation is no block."""
    if type(module).__name__ != "ConvBnAct":
        return True
    return any(isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1 for m in module.modules())


def _convolution_in(*prefixes: str) -> Callable[[str, nn.Module], bool]:
    return lambda path, module: path.startswith(prefixes)


def _cnn(*classes: str, outside: tuple[str, ...] = ()) -> Family:
    return Family(classes=classes, outside=outside)


def _hybrid(*classes: str, outside: tuple[str, ...] = ()) -> Family:
    return Family(classes=classes, outside=outside, kind="hybrid")


_MOBILE = Family(
    classes=(
        "InvertedResidual", "DepthwiseSeparableConv", "EdgeResidual", "CondConvResidual",
        "UniversalInvertedResidual", "MobileAttention", "ConvBnAct",
    ),
    outside=("conv_stem", "msfa"),
    keep=_spatial,
)  # fmt: skip
_PLAIN = Family(classes=("Conv2d",), keep=_convolution_in("features."))
_RESNET = _cnn("BasicBlock", "Bottleneck")
_BYOB = _cnn(
    "BasicBlock", "BottleneckBlock", "DarkBlock", "EdgeBlock", "RepVggBlock", "MobileOneBlock",
    "SelfAttnBlock",
)  # fmt: skip

#: timm, by the module (file) that defines the architecture.
TIMM: dict[str, Family] = {
    "byoanet": _BYOB,
    "byobnet": _BYOB,
    "convmixer": Family(
        classes=("Sequential",),
        keep=lambda p, m: p.count(".") == 1 and type(m[0]).__name__ == "Residual",
    ),
    "convnext": _cnn("ConvNeXtBlock"),
    "cspnet": _cnn("BottleneckBlock", "DarkBlock", "EdgeBlock"),
    "cspnext": _cnn("CspNextBlock"),
    "densenet": _cnn("DenseLayer"),
    "dla": _cnn("DlaBasic", "DlaBottleneck", "DlaBottle2neck"),
    "dpn": _cnn("DualPathBlock"),
    "edgenext": _cnn("ConvBlock", "SplitTransposeBlock"),
    "efficientnet": _MOBILE,
    "fasternet": _cnn("MLPBlock"),
    "fastvit": _cnn("RepMixerBlock", "AttentionBlock"),
    "focalnet": _cnn("FocalNetBlock"),
    "ghostnet": _cnn("GhostBottleneck", "GhostBottleneckV3"),
    "hardcorenas": _MOBILE,
    "hgnet": _cnn("HighPerfGpuBlock"),
    "hrnet": _RESNET,
    "inception_next": _cnn("MetaNeXtBlock"),
    "inception_resnet_v2": _cnn("Block35", "Block17", "Block8", "Mixed_6a", "Mixed_7a"),
    "inception_v3": _cnn("InceptionA", "InceptionB", "InceptionC", "InceptionD", "InceptionE"),
    "inception_v4": _cnn("InceptionA", "InceptionB", "InceptionC", "ReductionA", "ReductionB"),
    "lcnetv2": _cnn("RepDepthwiseSeparable"),
    "mambaout": _cnn("GatedConvBlock"),
    "metaformer": _cnn("MetaFormerBlock"),
    "mobilenetv3": _MOBILE,
    "mobilenetv5": _MOBILE,
    "nasnet": _cnn("FirstCell", "NormalCell", "ReductionCell0", "ReductionCell1"),
    "nfnet": _cnn("NormFreeBlock"),
    "pnasnet": _cnn("Cell"),
    "rdnet": _cnn("DenseBlock"),
    "regnet": _cnn("Bottleneck", "PreBottleneck"),
    "repghost": _cnn("RepGhostBottleneck"),
    "repvit": _cnn("RepVitDownsample", "RepViTBlock"),
    "res2net": _cnn("Bottle2neck"),
    "resnest": _cnn("ResNestBottleneck"),
    "resnet": _RESNET,
    "resnetv2": _cnn("PreActBasic", "PreActBottleneck", "Bottleneck"),
    "rexnet": _cnn("LinearBottleneck"),
    "selecsls": _cnn("SelecSlsBlock"),
    "senet": _cnn("SEBottleneck", "SEResNetBottleneck", "SEResNeXtBottleneck", "SEResNetBlock"),
    "sknet": _cnn("SelectiveKernelBasic", "SelectiveKernelBottleneck"),
    "starnet": _cnn("Block"),
    "tresnet": _RESNET,
    "vgg": _PLAIN,
    "vovnet": _cnn("OsaBlock"),
    "xception": _cnn("Block"),
    "xception_aligned": _cnn("XceptionModule", "PreXceptionModule"),
    # Convolutions and attention. Their blocks are counted too, apart from the CNNs.
    "cpubone": _hybrid("CPUBoneBlock", "ResidualBlock"),
    "csatv2": _hybrid("Block", "TransformerBlock"),
    "efficientformer": _hybrid("MetaBlock1d", "MetaBlock2d"),
    "efficientformer_v2": _hybrid("EfficientFormerV2Block"),
    "efficientvim": _hybrid("EfficientViMBlock"),
    "efficientvit_mit": _hybrid("EfficientVitBlock", "ResidualBlock"),
    "efficientvit_msra": _hybrid("EfficientVitBlock"),
    "gcvit": _hybrid("GlobalContextVitBlock", "MbConvBlock"),
    "iformer": _hybrid("ConvBlock", "SHMABlock", "FFN", "RepCPE"),
    "levit": _hybrid("LevitBlock", "LevitDownsample"),
    "lowformer": _hybrid("LowFormerBlock", "ResidualBlock"),
    "maxxvit": _hybrid(
        "MbConvBlock",
        "ConvNeXtBlock",
        "TransformerBlock2d",
        "PartitionAttentionCl",
        "PartitionAttention2d",
        "ParallelPartitionAttention",
    ),
    "mobilevit": _hybrid("BottleneckBlock", "MobileVitBlock", "MobileVitV2Block"),
    "nextvit": _hybrid("NextConvBlock", "NextTransformerBlock"),
    "shvit": _hybrid("BasicBlock"),
    "swiftformer": _hybrid("ConvEncoder", "Block"),
    "tiny_vit": _hybrid("MBConv", "TinyVitBlock"),
    "visformer": _hybrid("Block"),
    "vitamin": _hybrid("MbConvLNBlock", "Block"),
}

_TV_RESNET = _cnn("BasicBlock", "Bottleneck")

#: torchvision, by the prefix of the builder's name (the longest that fits).
TORCHVISION: dict[str, Family] = {
    "alexnet": _PLAIN,
    "vgg": _PLAIN,
    "resnet": _TV_RESNET,
    "resnext": _TV_RESNET,
    "wide_resnet": _TV_RESNET,
    "densenet": _cnn("_DenseLayer"),
    "googlenet": _cnn("Inception"),
    "inception_v3": _cnn("InceptionA", "InceptionB", "InceptionC", "InceptionD", "InceptionE"),
    "squeezenet": _cnn("Fire"),
    "mobilenet_v2": _cnn("InvertedResidual"),
    "mobilenet_v3": _cnn("InvertedResidual"),
    "mnasnet": _cnn("_InvertedResidual"),
    "shufflenet_v2": _cnn("InvertedResidual"),
    "efficientnet": _cnn("MBConv", "FusedMBConv"),
    "regnet": _cnn("ResBottleneckBlock"),
    "convnext": _cnn("CNBlock"),
    "video/r": Family(classes=("BasicBlock", "Bottleneck"), kind="video"),
    "video/mc3": Family(classes=("BasicBlock", "Bottleneck"), kind="video"),
    "video/s3d": Family(classes=("SepInceptionBlock3D",), kind="video"),
    "segmentation/": Family(classes=("BasicBlock", "Bottleneck"), kind="segmentation"),
    "segmentation/lraspp": Family(classes=("InvertedResidual",), kind="segmentation"),
    "segmentation/deeplabv3_mobilenet": Family(classes=("InvertedResidual",), kind="segmentation"),
    "backbone/": Family(classes=("BasicBlock", "Bottleneck"), kind="backbone"),
    "backbone/mobilenet": Family(classes=("InvertedResidual",), kind="backbone"),
}


def torchvision_family(name: str) -> Family:
    """The family of a torchvision builder; raises `KeyError` for one that is no CNN."""
    fits = [prefix for prefix in TORCHVISION if name.startswith(prefix)]
    if not fits:
        raise KeyError(name)
    return TORCHVISION[max(fits, key=len)]
