from __future__ import annotations

import pytest
import torch
from torch import nn

import rlawrap
from rlawrap.errors import ConfigError, PlanError
from rlawrap.models import get_model
from rlawrap.parameters import layer_depths, param_groups


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
