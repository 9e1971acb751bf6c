"""segmentation-models-pytorch: each architecture, and U-Nets over encoders of several families."""

from __future__ import annotations

from tests.wild.network import Wild, image, made, net


def _net(name: str, encoder: str, *blocks: str, size: int = 64) -> Wild:
    maker = made(f"segmentation_models_pytorch.{name}", encoder, encoder_weights=None)
    full = f"segmentation_models_pytorch/{name}-{encoder}"
    return net(full, maker, image(2, 3, size, size), *blocks)


NETS = (
    _net("Unet", "resnet18", "BasicBlock", "UnetDecoderBlock"),
    _net("UnetPlusPlus", "resnet18", "BasicBlock", "DecoderBlock"),
    _net("MAnet", "resnet18"),
    _net("Linknet", "resnet18", "BasicBlock", "DecoderBlock"),
    _net("FPN", "resnet18", "BasicBlock", "FPNBlock"),
    _net("PSPNet", "resnet18", "BasicBlock"),
    _net("DeepLabV3", "resnet18", "BasicBlock"),
    _net("DeepLabV3Plus", "resnet18", "BasicBlock"),
    _net("PAN", "resnet18", size=256),
    _net("UPerNet", "resnet18", "BasicBlock"),
    _net("Segformer", "resnet18", "BasicBlock"),
    _net("Unet", "mobilenet_v2", "InvertedResidual", "UnetDecoderBlock"),
    _net("Unet", "vgg11_bn"),
    _net("Unet", "densenet121", "_DenseLayer", "UnetDecoderBlock"),
    _net("Unet", "efficientnet-b0", "MBConvBlock", "UnetDecoderBlock"),
    _net("Unet", "timm-regnetx_002", "Bottleneck", "UnetDecoderBlock"),
    _net("Unet", "tu-resnet18", "BasicBlock", "UnetDecoderBlock"),
    _net("Unet", "dpn68", "DualPathBlock", "UnetDecoderBlock"),
    _net("Unet", "mobileone_s0", "MobileOneBlock", "UnetDecoderBlock"),
    _net("Unet", "se_resnet50", "SEResNetBottleneck", "UnetDecoderBlock"),
)
