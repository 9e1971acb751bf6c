from __future__ import annotations

from typing import Any

import pytest
import timm.optim
import torch
from torch import nn

from rlawrap.errors import ConfigError
from rlawrap.train import TrainConfig
from rlawrap.train.network import optimizers
from rlawrap.train.network.optim import make_optimizer, set_lr
from rlawrap.train.network.optimizers import torch_optimizers

PLAIN = TrainConfig(lr=0.3, weight_decay=0.1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("AdamW", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
        ("lamb", timm.optim.Lamb),
        ("timm:adamw", torch.optim.AdamW),
        ("torch:adam", torch.optim.Adam),
        ("timm:rmsprop_tf", timm.optim.RMSpropTF),
    ],
)
def test_an_optimiser_is_chosen_by_name(name: str, kind: type) -> None:
    made = make_optimizer(nn.Conv2d(2, 2, 1), PLAIN.replace(optimizer=name))
    assert type(made) is kind
    set_lr(made, 0.2)
    (group,) = made.param_groups
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.2, 0.1, 2)
    assert group.get("momentum", 0.9) == 0.9 and not group.get("nesterov", False)


@pytest.mark.parametrize("name", sorted(set(torch_optimizers()) - {"muon"}))
def test_all_of_torch_take_a_step(name: str) -> None:
    model = nn.Conv2d(2, 2, 1)
    decay = 0.0 if name == "rprop" else 0.1
    made = make_optimizer(model, PLAIN.replace(optimizer=name, weight_decay=decay))
    before = model.weight.detach().clone()
    model(torch.ones(1, 2, 1, 1)).sum().backward()
    made.step()
    assert not torch.equal(model.weight, before)


def test_arguments_reach_the_optimiser() -> None:
    config = PLAIN.replace(optimizer="adamw", opt_args={"betas": [0.8, 0.9], "eps": 1e-6})
    (group,) = make_optimizer(nn.Linear(2, 2), config).param_groups
    assert (group["betas"], group["eps"]) == ((0.8, 0.9), 1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "adamv"}, "optimizer='adamv'.*Nearest: .*adamw"),
        ({"optimizer": "keras:adam"}, "'keras' is no source"),
        ({"optimizer": "torch:lamb"}, "there is none of that name"),
        ({"optimizer": "lbfgs"}, "the loss several times"),
        ({"optimizer": "adahessian"}, "second derivatives"),
        ({"optimizer": "adamw", "opt_args": {"beta": 1}}, "takes no beta=1. Nearest: betas"),
        ({"optimizer": "adamw", "opt_args": {"lr": 1}}, "an option of its own, --lr"),
        ({"optimizer": "adamw", "opt_args": {"eps": -1.0}}, "cannot be built with .*-1.0"),
        ({"optimizer": "adamw", "momentum": 0.5}, "momentum=0.5: adamw has no momentum"),
        ({"optimizer": "adamw", "nesterov": True}, "nesterov=True: adamw has no"),
        ({"optimizer": "rprop"}, "weight_decay=0.1: rprop has no .* Set --weight-decay 0"),
    ],
)
def test_what_there_is_not_is_told(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_optimizer(nn.Conv2d(2, 2, 1), PLAIN.replace(**changes))


def test_without_timm_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm.optim", None)
    with pytest.raises(ConfigError, match=r"rlawrap\[timm\]"):
        make_optimizer(nn.Conv2d(2, 2, 1), PLAIN.replace(optimizer="lamb"))


def test_optimisers_of_torch_are_found_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise AssertionError("timm takes seconds to import")

    monkeypatch.setattr(optimizers, "_timm_names", fail)
    assert optimizers.find_optimizer("SGD") is torch.optim.SGD
    assert optimizers.find_optimizer("torch:adam_w") is torch.optim.AdamW


def test_an_optimiser_that_cannot_be_used_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_cuda(name: str) -> None:
        raise AssertionError("CUDA required for bitsandbytes optimizers")

    monkeypatch.setattr(timm.optim, "get_optimizer_class", without_cuda)
    config = TrainConfig(optimizer="timm:lion", weight_decay=0.0)
    with pytest.raises(ConfigError, match="'lion': cannot be used here: CUDA required"):
        make_optimizer(nn.Conv2d(2, 2, 1), config)
