"""A dozen networks have the plans whose digests are committed; `make digest` checks all."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("timm", reason="the zoo needs timm: pip install 'rlawrap[timm]'")

from tests.zoo.digest import DIGESTS, plan_row, versions
from tests.zoo.nets import all_nets

KEPT = json.loads(DIGESTS.read_text())

#: Quick ones, of which each has its blocks by another rule.
QUICK = (
    "torchvision/alexnet", "torchvision/resnet18", "torchvision/squeezenet1_1",
    "torchvision/mobilenet_v3_small", "torchvision/video/r3d_18", "timm/byobnet/test_byobnet",
    "timm/convnext/test_convnext", "timm/dla/dla46_c", "timm/efficientnet/test_efficientnet",
    "timm/mambaout/test_mambaout", "timm/mobilenetv3/lcnet_035", "timm/nfnet/test_nfnet",
    "timm/vgg/vgg11_bn",
)  # fmt: skip

same_versions = pytest.mark.skipif(
    KEPT["versions"] != versions(), reason=f"the digests are of {KEPT['versions']}"
)


@same_versions
def test_every_network_has_a_digest() -> None:
    assert set(KEPT["digests"]) == {net.name for net in all_nets()}


@same_versions
@pytest.mark.parametrize("name", QUICK)
def test_the_plan_is_as_committed(name: str) -> None:
    assert plan_row(name)["digest"] == KEPT["digests"][name]
