from __future__ import annotations

import pytest
import torchvision

import rlawrap
from rlawrap.errors import CheckpointError
from rlawrap.models import get_model
from tests.nets import without_init
from tests.official.golden import FACTS, WITH_LAYOUT, layout_digest

# One of every family and every difference between the families' layouts.
QUICK = [
    "dsrla_mobilenetv2_k12_eca",
    "mobilenetv2_eca",
    "resnet50_k",
    "resnext50_32x4d_se",
    "rla_mobilenetv2_k6",
    "rla_resnet50_eca",
    "rla_resnext50_32x4d_se",
    "rlagru_resnet50_eca",
    "rlalstm_resnet50",
    "rlarh_resnet50",
    "rlaus_resnet50",
    "rlav1p_resnet50",
]


def _check(name: str) -> None:
    with without_init():
        state = rlawrap.official_state_dict(get_model(name))
    assert len(state) == FACTS[name]["tensors"]
    assert layout_digest(state) == FACTS[name]["layout"]


@pytest.mark.parametrize("name", QUICK)
def test_official_keys_shapes_and_order(name: str) -> None:
    _check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(WITH_LAYOUT) - set(QUICK)))
def test_official_keys_shapes_and_order_of_the_rest(name: str) -> None:
    _check(name)


def test_models_the_official_code_cannot_build() -> None:
    with without_init():
        base = torchvision.models.resnet18(weights=None)
        vgg = rlawrap.apply(torchvision.models.vgg11(weights=None), k=4)
    config = rlawrap.variant("rla", k=4)
    for options, reason in (
        ({"share": "network"}, "share='network'"),
        ({"initial_state": "none"}, "it needs rla.inject.0.conv.weight, which this model lacks"),
        ({"cell": "dwconv"}, "it has no depthwise cell"),
    ):
        model = rlawrap.apply(base, config=config.with_options(**options))
        with pytest.raises(CheckpointError, match=reason):
            rlawrap.official_state_dict(model)
    with pytest.raises(CheckpointError, match="ResNets and MobileNetV2, no VGG"):
        rlawrap.official_state_dict(vgg)
