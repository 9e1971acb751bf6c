from __future__ import annotations

import pytest
import torch
from torch import nn

import rlawrap
from rlawrap.errors import ConfigError, PlanError
from rlawrap.models import get_model
from rlawrap.parameters import layer_depths, named_rla_parameters, param_groups, rla_parameters
from tests.nets import BlockNet


class Detector(nn.Module):
    """Holds a rewritten network, beside an `rla` that is none of ours."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.rla, self.backbone, self.neck = nn.Linear(5, 2), body, nn.Linear(2, 2)


def test_rates_fall_from_the_classifier_to_the_stem_and_rla_parameters_keep_theirs() -> None:
    model = rlawrap.apply(get_model("cifar_resnet20"), k=4)
    groups = param_groups(model, lr=0.2, rla_lr=1.0, weight_decay=0.1, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)]: group for group in groups for p in group["params"]}
    assert set(found) == set(names.values())
    rates = {name: found[name]["lr"] for name in found}
    assert rates["fc.weight"] == 0.2
    assert rates["layer3.2.conv2.weight"] == 0.1
    assert rates["layer1.0.conv1.weight"] == 0.2 * 0.5**9
    assert rates["stem.0.weight"] == 0.2 * 0.5**10
    assert {rate for name, rate in rates.items() if name.startswith("rla.")} == {1.0}
    assert found["fc.weight"]["weight_decay"] == 0.1 and found["fc.bias"]["weight_decay"] == 0.0
    plain = {**layer_depths(get_model("cifar_resnet20"))}
    assert layer_depths(model) == plain  # the hidden state moves nothing
    torch.optim.AdamW(groups)


def test_what_cannot_be_grouped_is_told() -> None:
    model = get_model("cifar_resnet20")
    with pytest.raises(ConfigError, match=r"layer_decay=1\.5"):
        param_groups(model, lr=0.1, layer_decay=1.5)
    with pytest.raises(PlanError, match="layer_decay"):
        param_groups(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), lr=0.1, layer_decay=0.5)
    with pytest.raises(ConfigError, match="no parameter to train"):
        param_groups(model.requires_grad_(False), lr=0.1)


def test_the_parameters_of_h_are_given_in_order_wherever_they_are() -> None:
    model = rlawrap.apply(BlockNet(), k=4)
    expected = [(n, p) for n, p in model.named_parameters() if n.startswith("rla.")]
    assert [n for n, _ in named_rla_parameters(model)] == [n for n, _ in expected]
    given = rla_parameters(model)
    assert next(given) is expected[0][1]  # an iterator, as `parameters()` is
    assert [id(p) for p in given] == [id(p) for _, p in expected[1:]]
    detector = Detector(model)
    assert [n for n, _ in named_rla_parameters(detector)] == [f"backbone.{n}" for n, _ in expected]
    two = nn.ModuleList([model, rlawrap.apply(BlockNet(), k=4), model])
    assert len([*rla_parameters(two)]) == 2 * len(expected)
    torch.optim.SGD(rlawrap.rla_parameters(two), lr=0.1)


def test_an_rla_of_ones_own_is_not_ours() -> None:
    base = Detector(BlockNet())
    for call in (rla_parameters, named_rla_parameters):
        with pytest.raises(PlanError, match=r"Detector has no hidden state.*`model = rlawrap.app"):
            call(base)
    (group,) = param_groups(base, lr=0.1, rla_lr=1.0, no_decay=False)
    assert group["lr"] == 0.1 and len(group["params"]) == len([*base.parameters()])


def test_groups_of_a_model_that_holds_a_rewritten_network() -> None:
    body = rlawrap.apply(BlockNet(), k=4)
    detector = Detector(rlawrap.freeze_base(body, head="body"))
    detector.neck.weight = detector.rla.weight
    groups = param_groups(detector, lr=0.2, rla_lr=1.0, weight_decay=0.1, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    given = [(names[id(p)], group) for group in groups for p in group["params"]]
    found = dict(given)
    assert len(found) == len(given)
    assert set(found) == {n for n, p in detector.named_parameters() if p.requires_grad}
    assert "neck.weight" not in found and "backbone.stem.weight" not in found
    rates = {name: group["lr"] for name, group in found.items()}
    assert rates["rla.weight"] == rates["neck.bias"] == 0.2
    assert {rate for n, rate in rates.items() if n.startswith("backbone.rla.")} == {1.0}
    assert [rates[f"backbone.body.{n}.conv1.weight"] for n in range(3)] == [0.025, 0.05, 0.1]


def test_the_base_may_have_the_rate_0() -> None:
    model = rlawrap.apply(BlockNet(), k=4)
    groups = param_groups(model, lr=0.0, rla_lr=0.5, no_decay=False)
    assert [group["lr"] for group in groups] == [0.0, 0.5]
    assert len(groups[1]["params"]) == len([*rla_parameters(model)])
