"""An exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rlawrap import _torch


class Average:
    """`average <- d average + (1 - d) weights` after each step, d = min(decay, (1+t) / (10+t)).

    With `every` = n it is after each n-th step, and t counts those.

    The smaller d of the first steps lets the average leave the random initial weights behind.
    Norm statistics are averaged like weights, counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float, *, every: int = 1) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.every = every

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights of `model`; `step` counts from 0 over the run."""
        if (step + 1) % self.every:
            return
        count = step // self.every
        weight = 1 - min(self.decay, (1 + count) / (10 + count))
        averages, values = [], []
        for average, value in zip(_tensors(self.model), _tensors(model), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value.detach())
            else:
                average.copy_(value)
        _torch.lerp_all(averages, values, weight)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
