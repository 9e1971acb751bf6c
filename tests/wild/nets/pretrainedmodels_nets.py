"""pretrainedmodels (Cadene)."""

from __future__ import annotations

from tests.wild.network import Wild, image, made, net


def _net(name: str, *blocks: str, size: int = 224) -> Wild:
    maker = made(f"pretrainedmodels.{name}", num_classes=1000, pretrained=None)
    return net(f"pretrainedmodels/{name}", maker, image(2, 3, size, size), *blocks)


NETS = (
    _net("squeezenet1_0", "Fire"),
    _net("resnet18", "BasicBlock"),
    _net("cafferesnet101", "Bottleneck"),
    _net("bninception"),
    _net("nasnetamobile"),
    _net("dpn68", "DualPathBlock"),
    _net("xception", "Block", size=299),
    _net("se_resnet50", "SEResNetBottleneck"),
    _net("resnext101_32x4d"),
    _net("inceptionv4", "Inception_A", "Inception_B", "Inception_C", "Mixed_3a", "Mixed_4a",
         "Mixed_5a", "Reduction_A", "Reduction_B", size=299),
    _net("inceptionresnetv2", "Block17", "Block35", "Block8", "Mixed_5b", "Mixed_6a", "Mixed_7a",
         size=299),
)  # fmt: skip
