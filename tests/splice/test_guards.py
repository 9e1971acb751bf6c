"""What would lose h in silence says so when it happens."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

import rlawrap
from tests.nets import family, random_rla

LOST = r"'layer1' of the rewritten ResNet was called by itself"


@pytest.fixture(scope="module")
def model() -> rlawrap.RLAModel:
    base, _ = family("resnet18")
    return random_rla(rlawrap.apply(base.eval(), k=4))  # type: ignore[return-value]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(1, 3, 32, 32)


def test_a_stage_called_by_itself_warns_where_it_is_called(model: rlawrap.RLAModel) -> None:
    with pytest.warns(rlawrap.RLAWarning, match=LOST) as caught:
        model.layer1(torch.randn(1, 64, 8, 8))
    assert [w.filename for w in caught] == [__file__]
    with pytest.warns(rlawrap.RLAWarning, match=r"'layer2\.1'"):
        model.layer2[1](torch.randn(1, 128, 8, 8))


def test_getters_and_sequentials_warn_once_a_stage(
    model: rlawrap.RLAModel, x: torch.Tensor
) -> None:
    for rebuilt in (
        IntermediateLayerGetter(model, {"layer2": "out"}),
        nn.Sequential(*list(model.children())[:6]),
    ):
        with pytest.warns(rlawrap.RLAWarning, match="called by itself") as caught:
            rebuilt(x)
        assert [str(w.message).split("'")[1] for w in caught] == ["layer1", "layer2"]


def test_the_model_its_copies_and_a_second_trace_are_silent(
    model: rlawrap.RLAModel, x: torch.Tensor
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", rlawrap.RLAWarning)
        for twin in (model, copy.copy(model), copy.deepcopy(model)):
            twin(x)
            with rlawrap.disabled(twin):
                twin(x)
        pickle.loads(pickle.dumps(model))(x)
        torch.fx.symbolic_trace(model)(x)
        model.layer1[0].conv1(torch.randn(1, 64, 8, 8))  # a layer is a layer
        rlawrap.backbone(model)(x)


def test_a_copy_warns_too_and_the_base_that_is_given_back_does_not(
    model: rlawrap.RLAModel, x: torch.Tensor
) -> None:
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), rlawrap.backbone(model)):
        with pytest.warns(rlawrap.RLAWarning, match=LOST):
            twin.layer1(torch.randn(1, 64, 8, 8))
    bare = rlawrap.unwrap(model)
    assert not any(m._forward_pre_hooks for m in bare.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("error", rlawrap.RLAWarning)
        bare.layer1(torch.randn(1, 64, 8, 8))


def test_within_disabled_a_stage_is_the_bases(model: rlawrap.RLAModel) -> None:
    image = torch.randn(1, 64, 8, 8)
    with warnings.catch_warnings(), rlawrap.disabled(model):
        warnings.simplefilter("error", rlawrap.RLAWarning)
        assert torch.equal(model.layer1(image), rlawrap.unwrap(model).layer1(image))
