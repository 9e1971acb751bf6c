from __future__ import annotations

import pytest
import torch
from torch import nn

from rlawrap.train.network.ema import Average


def test_every_second_step_counts_steps_of_its_own() -> None:
    model = nn.Linear(1, 1)
    average = Average(model, decay=0.9, every=2)
    for step in range(4):
        with torch.no_grad():
            model.weight.fill_(step)
        before = average.model.weight.item()
        average.update(model, step)
        decay = {1: 0.1, 3: 2 / 11}.get(step, 1.0)  # (1 + t) / (10 + t), t = 0 and 1
        assert average.model.weight.item() == pytest.approx(decay * before + (1 - decay) * step)


def test_the_average_moves_as_its_formula_says() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = Average(model, decay=0.9)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(150):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(4, 2))
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value.clone()
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert not any(p.requires_grad for p in average.model.parameters())
    assert not average.model.training
