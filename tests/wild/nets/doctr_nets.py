"""docTR: classification, text detection and recognition."""

from __future__ import annotations

from typing import Any

from tests.wild.network import Maker, Wild, made, named, net, positive


def _net(path: str, example: Maker, *blocks: str, trains: bool = True, **options: Any) -> Wild:
    name = path.split(".")[-1]
    maker = made(f"doctr.models.{path}", pretrained=False, **options)
    return net(f"doctr/{name}", maker, example, *blocks, trains=trains)


_BARE = {"pretrained_backbone": False}
_LINE = positive(2, 3, 32, 64)
_PAGE = named(x=positive(1, 3, 64, 64), return_model_output=lambda: True)
_WORD = named(x=positive(2, 3, 32, 128), return_model_output=lambda: True)

NETS = (
    _net("classification.mobilenet_v3_small", _LINE, "InvertedResidual"),
    _net("classification.resnet18", _LINE, "BasicBlock"),
    _net("classification.resnet31", _LINE, "BasicBlock"),
    _net("classification.magc_resnet31", _LINE, "BasicBlock"),
    _net("classification.vgg16_bn_r", _LINE),
    _net("classification.textnet_tiny", positive(2, 3, 32, 32), "FASTConvLayer"),
    _net("detection.linknet_resnet18", _PAGE, "BasicBlock", **_BARE),
    _net("detection.db_resnet50", _PAGE, "Bottleneck", **_BARE),
    _net("detection.db_mobilenet_v3_large", _PAGE, "InvertedResidual", **_BARE),
    _net("detection.fast_tiny", _PAGE, **_BARE),
    _net("recognition.crnn_vgg16_bn", _WORD, trains=False, **_BARE),
    _net("recognition.crnn_mobilenet_v3_small", _WORD, "InvertedResidual", trains=False,
         **_BARE),
)  # fmt: skip
