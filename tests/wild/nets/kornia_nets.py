"""kornia: descriptors, detectors of keypoints and edges, restoration."""

from __future__ import annotations

from typing import Any

from tests.wild.network import Maker, Wild, changed, image, made, net


def _net(name: str, example: Maker, *blocks: str) -> Wild:
    return net(f"kornia/{name}", made(f"kornia.feature.{name}", False), example, *blocks)


def _copyable(dedode: Any) -> None:
    """Its decoder holds a dict's view, which `copy.deepcopy` refuses."""
    dedode.decoder.scales = list(dedode.decoder.scales)


_PATCH = image(2, 1, 32, 32)

NETS = (
    _net("HardNet", _PATCH),
    _net("HyNet", _PATCH),
    _net("TFeat", _PATCH),
    _net("SOSNet", _PATCH),
    _net("KeyNet", image(2, 1, 32, 32)),
    _net("OriNet", _PATCH),
    _net("DeFMO", image(1, 6, 64, 64), "Bottleneck"),
    net("kornia/DexiNed", made("kornia.models.dexined.DexiNed", False), image(1, 3, 64, 64)),
    net("kornia/RRDBNet", made("kornia.models.rrdbnet.RRDBNet", 3, 3, 4, 16, 3, 8),
        image(1, 3, 32, 32), "ResidualDenseBlock"),
    net("kornia/SmallSRNet", made("kornia.models.small_sr.SmallSRNet", 3, pretrained=False),
        image(1, 1, 32, 32)),
    net("kornia/XFeatModel", made("kornia.feature.xfeat.XFeatModel"), image(1, 3, 64, 64)),
    net("kornia/EfficientViT",
        made("kornia.models.efficient_vit.backbone.efficientvit_backbone_b0"),
        image(1, 3, 64, 64)),
    net("kornia/DeDoDe",
        changed(made("kornia.feature.dedode.dedode_models.get_detector"), _copyable),
        image(1, 3, 64, 64), "ConvRefiner"),
    net("kornia/LoFTR-backbone",
        made("kornia.feature.loftr.backbone.resnet_fpn.ResNetFPN_8_2",
             {"initial_dim": 16, "block_dims": [16, 24, 32]}),
        image(1, 1, 64, 64), "BasicBlock"),
    net("kornia/YuNet", made("kornia.contrib.face_detection.YuNet", "test", False),
        image(1, 3, 320, 320)),
)  # fmt: skip
