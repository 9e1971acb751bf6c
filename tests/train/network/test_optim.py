from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import rlawrap
from rlawrap.errors import ConfigError
from rlawrap.train import TrainConfig
from rlawrap.train.config.recipes import get_recipe
from rlawrap.train.network.optim import learning_rate, make_optimizer, parameter_groups, set_lr
from tests.nets import BlockNet


def with_h() -> nn.Module:
    return rlawrap.apply(BlockNet(), k=4)


def test_one_group_when_nothing_is_special() -> None:
    (group,) = parameter_groups(with_h(), TrainConfig(weight_decay=0.1))
    assert len(group.names) == len([*with_h().parameters()])
    assert (group.lr_scale, group.weight_decay) == (1.0, 0.1)


def test_biases_and_norms_do_not_decay_and_rla_learns_at_its_own_rate() -> None:
    model = with_h()
    config = TrainConfig(weight_decay=0.1, decay_filter="weights", rla_lr=5, lr=0.2)
    groups = {name: g for g in parameter_groups(model, config) for name in g.names}
    assert {name: (g.lr_scale, g.weight_decay) for name, g in groups.items()} == {
        name: (5 if name.startswith("rla.") else 1.0, 0.1 if p.ndim > 1 else 0.0)
        for name, p in model.named_parameters()
    }
    optimizer = make_optimizer(model, config)
    set_lr(optimizer, 0.2)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    for name, parameter in model.named_parameters():
        rate, decay = 0.2 * groups[name].lr_scale, groups[name].weight_decay
        expected = before[name] - rate * (1 + decay * before[name])
        torch.testing.assert_close(parameter.detach(), expected)


def test_frozen_parameters_are_left_out() -> None:
    model = with_h()
    model.stem.requires_grad_(False)
    names = [n for g in parameter_groups(model, TrainConfig()) for n in g.names]
    assert not any(name.startswith("stem") for name in names)
    with pytest.raises(ConfigError, match="no parameter to train"):
        parameter_groups(model.requires_grad_(False), TrainConfig())


def test_official_schedules() -> None:
    resnet = TrainConfig(lr=0.1, schedule="step", step_epochs=30, gamma=0.1, epochs=120)
    mobile = TrainConfig(lr=0.045, schedule="exponential", gamma=0.98, epochs=400)
    for epoch in range(120):
        for step in (epoch * 7, epoch * 7 + 6):
            assert learning_rate(resnet, step, 7) == pytest.approx(0.1 * 0.1 ** (epoch // 30))
            assert learning_rate(mobile, step, 7) == pytest.approx(0.045 * 0.98**epoch)


def test_cosine_and_warm_up() -> None:
    config = TrainConfig(lr=1.0, schedule="cosine", epochs=10)
    rates = [learning_rate(config, step, 10) for step in range(100)]
    assert rates[0] == 1.0 and rates[50] == pytest.approx(0.5)
    assert rates == sorted(rates, reverse=True)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))
    warm = config.replace(schedule="constant", warmup_epochs=2.0, warmup_start=0.1)
    rates = [learning_rate(warm, step, 10) for step in range(25)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == pytest.approx(0.55)
    assert rates[20:] == [1.0] * 5


def test_the_1x_schedule_step_by_step() -> None:
    config = get_recipe("coco-1x").config()
    rates = {
        step: learning_rate(config, step, steps_per_epoch=1000)
        for step in (0, 250, 499, 500, 7999, 8000, 10999, 11000)
    }
    assert rates[0] == pytest.approx(0.02 * 0.001)
    assert rates[250] == pytest.approx(0.02 * (0.001 + 0.999 / 2))
    assert rates[499] < rates[500] == pytest.approx(0.02) == pytest.approx(rates[7999])
    assert rates[8000] == pytest.approx(0.002) == pytest.approx(rates[10999])
    assert rates[11000] == pytest.approx(0.0002)
    assert get_recipe("coco-1x-retinanet").config().lr == 0.01
    assert (config.epochs, config.batch_size, config.weight_decay) == (12, 16, 1e-4)
