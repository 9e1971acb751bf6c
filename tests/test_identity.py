from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from rlawrap.attention import attend
from rlawrap.errors import CheckpointError
from rlawrap.identity import identify, rebuild
from rlawrap.models import cifar, get_model
from tests.nets import without_init

TORCHVISION = [
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "regnet_y_400mf",
    "vgg11_bn",
    "densenet121",
    "googlenet",
    "squeezenet1_0",
    "convnext_tiny",
    "r3d_18",
    "lraspp_mobilenet_v3_large",
]


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks_are_recognised(name: str) -> None:
    with without_init():
        model = rebuild({"source": "torchvision", "name": name, "kwargs": {"num_classes": 11}})
        identity = identify(model)
        again = rebuild(identity)
    assert (identity["source"], identity["name"]) == ("torchvision", name)
    assert repr(again) == repr(model)


def test_alike_networks_are_told_apart() -> None:
    """Same layers, other numbers: a depth, a group count, a dilation."""
    assert identify(torchvision.models.resnet101())["name"] == "resnet101"
    grouped = torchvision.models.resnext50_32x4d()
    assert identify(grouped)["name"] == "resnext50_32x4d"
    dilated = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])
    assert identify(dilated) == {"source": "custom"}
    changed = torchvision.models.resnet50()
    changed.layer1[0].conv2.stride = (2, 2)
    assert identify(changed) == {"source": "custom"}


def test_auxiliary_heads_are_part_of_the_identity() -> None:
    model = torchvision.models.googlenet(init_weights=False, aux_logits=False, num_classes=5)
    kwargs = identify(model)["kwargs"]
    assert kwargs["aux_logits"] is False
    assert kwargs["num_classes"] == 5


def test_own_networks() -> None:
    model = cifar.cifar_resnet32(num_classes=4, in_channels=1)
    assert identify(model) == {
        "source": "rlawrap",
        "name": "cifar_resnet32",
        "kwargs": {"num_classes": 4, "in_channels": 1},
    }


def test_networks_with_channel_attention() -> None:
    gated = attend(torchvision.models.resnet18(num_classes=3), "se")
    assert identify(gated) == {
        "source": "torchvision",
        "name": "resnet18",
        "kwargs": {"num_classes": 3},
        "attention": "se",
    }
    assert repr(rebuild(identify(gated))) == repr(gated)
    assert identify(attend(torchvision.models.resnet18(), "eca", kernel=7)) == {"source": "custom"}


@pytest.mark.parametrize("name", ["resnet50_k", "mobilenetv2_eca"])
def test_official_networks(name: str) -> None:
    identity = identify(get_model(name, num_classes=9))
    assert identity == {"source": "rlawrap", "name": name, "kwargs": {"num_classes": 9}}


def test_timm_networks() -> None:
    timm = pytest.importorskip("timm", reason="needs the timm extra")
    model = timm.create_model("resnet26", num_classes=6, in_chans=1)
    assert identify(model) == {
        "source": "timm",
        "name": "resnet26",
        "kwargs": {"num_classes": 6, "in_chans": 1},
    }
    assert identify(timm.create_model("resnet26", features_only=True)) == {"source": "custom"}


def test_identifying_leaves_the_random_state_alone() -> None:
    model = torchvision.models.regnet_y_400mf()
    before = torch.get_rng_state()
    assert identify(model)["name"] == "regnet_y_400mf"
    assert torch.equal(before, torch.get_rng_state())


def test_custom_networks() -> None:
    class Mine(torchvision.models.ResNet):
        pass

    block = torchvision.models.resnet.BasicBlock
    assert identify(Mine(block, [2, 2, 2, 2])) == {"source": "custom"}
    assert identify(nn.Identity()) == {"source": "custom"}
    with pytest.raises(CheckpointError, match="pass `base=model`"):
        rebuild({"source": "custom"})
