"""One or two networks of each family of CNNs: blocks of the family's own classes, and sound."""

from __future__ import annotations

from dataclasses import replace

import pytest
from packaging.version import Version

pytest.importorskip("timm", reason="the zoo needs timm: pip install 'rlawrap[timm]'")

from timm import create_model

from tests.zoo.nets import Net, all_nets
from tests.zoo.soundness import check

#: The smallest networks that show what is particular about a family.
NAMES = (
    "torchvision/alexnet", "torchvision/resnet18", "torchvision/densenet121",
    "torchvision/googlenet", "torchvision/squeezenet1_1", "torchvision/mobilenet_v3_small",
    "torchvision/mnasnet0_5", "torchvision/shufflenet_v2_x0_5", "torchvision/regnet_y_400mf",
    "torchvision/video/r3d_18", "torchvision/segmentation/lraspp_mobilenet_v3_large",
    "torchvision/backbone/resnet18_fpn",
    "timm/byoanet/lambda_resnet26t", "timm/byobnet/test_byobnet", "timm/byobnet/mobileone_s0",
    "timm/convnext/test_convnext", "timm/cspnet/cspresnet50", "timm/cspnext/cspnext_tiny",
    "timm/dla/dla46_c", "timm/dpn/dpn48b", "timm/edgenext/edgenext_xx_small",
    "timm/efficientnet/test_efficientnet", "timm/efficientnet/mixnet_s",
    "timm/fasternet/fasternet_t0", "timm/fastvit/fastvit_t8", "timm/ghostnet/ghostnetv2_100",
    "timm/hgnet/hgnetv2_b0", "timm/hrnet/hrnet_w18_small",
    "timm/inception_next/inception_next_atto", "timm/lcnetv2/lcnetv2_small",
    "timm/mambaout/test_mambaout", "timm/metaformer/poolformer_s12", "timm/mobilenetv3/lcnet_035",
    "timm/nfnet/test_nfnet", "timm/rdnet/rdnet_tiny", "timm/regnet/regnetz_005",
    "timm/repghost/repghostnet_050", "timm/repvit/repvit_m1", "timm/resnest/resnest14d",
    "timm/resnetv2/resnetv2_18", "timm/rexnet/rexnet_100", "timm/selecsls/selecsls42",
    "timm/resnet/resnet10t", "timm/hardcorenas/hardcorenas_a",
    "timm/sknet/skresnet18", "timm/starnet/starnet_s050", "timm/tresnet/tresnet_m",
    "timm/vgg/vgg11_bn", "timm/vovnet/ese_vovnet19b_slim_dw", "timm/shvit/shvit_s1",
)  # fmt: skip

#: Of these only the plan is checked: running them takes too long for every test run.
PLANNED = (
    "torchvision/convnext_tiny", "torchvision/inception_v3", "torchvision/mobilenet_v2",
    "torchvision/vgg11", "torchvision/efficientnet_b0",
    "timm/convmixer/convmixer_1536_20", "timm/densenet/densenet121",
    "timm/inception_v4/inception_v4", "timm/nasnet/nasnetalarge", "timm/pnasnet/pnasnet5large",
    "timm/res2net/res2net50_48w_2s", "timm/senet/legacy_seresnet18",
    "timm/focalnet/focalnet_tiny_srf", "timm/inception_resnet_v2/inception_resnet_v2",
    "timm/inception_v3/inception_v3", "timm/mobilenetv5/mobilenetv5_base",
    "timm/xception/legacy_xception", "timm/xception_aligned/xception41",
)  # fmt: skip

#: The first timm that has it, where that is newer than the oldest which the tests run with.
NEW = {"timm/cspnext/cspnext_tiny": "1.0.31", "timm/lcnetv2/lcnetv2_small": "1.0.29"}

ZOO = {net.name: net for net in all_nets()}

#: Nine in ten weights of timm's VGG are the 4,096 channels of its head, which holds no block.
ZOO["timm/vgg/vgg11_bn"] = replace(
    ZOO["timm/vgg/vgg11_bn"], builder=lambda: create_model("vgg11_bn", mlp_ratio=1 / 64)
)


def lacks(name: str) -> bool:
    import timm

    return name in NEW and Version(timm.__version__) < Version(NEW[name])


def test_the_zoo_holds_each_name_once() -> None:
    nets = all_nets()
    assert len(ZOO) == len(nets) > 900
    assert {n.label for n in nets} >= {"torchvision classification", "timm resnet", "timm dla"}


def test_every_family_of_cnns_is_here() -> None:
    families = {net.label for net in ZOO.values() if net.family.kind != "hybrid"}
    assert families - {ZOO[n].label for n in (*NAMES, *PLANNED) if not lacks(n)} == set()


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_exact_and_the_rewrite_is_sound(name: str) -> None:
    if lacks(name):
        pytest.skip(f"new in timm {NEW[name]}")
    row = check(ZOO[name])
    assert row.get("refused") is None
    assert (row["missing"], row["extra"]) == ([], [])
    assert row["exact"]
    assert {k: v for k, v in row["checks"].items() if v != "ok"} == {}


@pytest.mark.parametrize("name", PLANNED)
def test_blocks_are_exact(name: str) -> None:
    row = check(ZOO[name], only_blocks=True)
    assert (row.get("refused"), row["missing"], row["extra"]) == (None, [], [])


def test_a_network_of_token_sequences_is_refused_by_name() -> None:
    row = check(ZOO["timm/levit/levit_128s"], only_blocks=True)
    assert row["blocks"] == 0
    assert "stages.0.blocks.0" in row["refused"]
    assert "sequences of tokens" in row["refused"]


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("timm/densenet/densenet121", 58),
        ("timm/regnet/regnety_002", 13),
        ("timm/convnext/convnext_atto", 12),
        ("timm/res2net/res2net50_14w_8s", 16),
        ("timm/ghostnet/ghostnet_050", 16),
    ],
)
def test_the_yardstick_counts_what_the_architecture_is_known_to_have(
    name: str, blocks: int
) -> None:
    net: Net = ZOO[name]
    assert len(net.family.blocks(net.build())) == blocks
