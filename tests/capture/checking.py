"""Whether a rewritten network is its base: outputs and their classes, gradients, buffers."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor, nn

import rlawrap


class Block(nn.Module):
    """A residual block; subclasses change what stands before it and after it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.b(torch.relu(self.a(x))))

    def forward(self, x: Tensor) -> Any:
        return x + self.body(x)


class Net(nn.Module):
    """Three blocks between a stem and a classifier."""

    def __init__(self, block: type[nn.Module] = Block) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(block(), block(), block())
        self.fc = nn.Linear(8, 5)

    def before(self, x: Tensor) -> Tensor:
        return x

    def features(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(self.before(x))).mean((2, 3)))

    def forward(self, x: Tensor) -> Any:
        return self.features(x)


BODY = ["body.0", "body.1", "body.2"]
SIZES = ((2, 16, 16), (1, 16, 16), (5, 24, 16), (3, 17, 21), (4, 32, 40))


def images(sizes: Sequence[tuple[int, int, int]] = SIZES) -> list[Tensor]:
    return [torch.randn(n, 3, h, w) for n, h, w in sizes]


def seed() -> None:
    torch.manual_seed(4)
    random.seed(4)
    numpy.random.seed(4)  # noqa: NPY002


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [t for item in value for t in tensors_of(item)]
    names = getattr(type(value), "__slots__", None) or getattr(value, "__dict__", ())
    return [t for name in names for t in tensors_of(getattr(value, name))]


def check(
    base: nn.Module, model: nn.Module, calls: Sequence[Any], *, gradients: bool = True
) -> None:
    """Both give the same for every call (the arguments in a tuple, or one tensor), in both modes.

    They draw the same random numbers, and update their buffers alike.
    """
    base = rlawrap.copying.deep_copy(base)
    for training in (False, True):
        base.train(training), model.train(training)
        for call in calls:
            args = call if isinstance(call, tuple) else (call,)
            seed()
            expected = base(*copy.deepcopy(args))
            seed()
            got = model(*copy.deepcopy(args))
            assert type(got) is type(expected)
            pairs = list(zip(tensors_of(got), tensors_of(expected), strict=True))
            assert pairs
            for a, b in pairs:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
            if gradients:
                _same_gradients(base, model, pairs)
        ours = dict(model.named_buffers())
        for name, buffer in base.named_buffers():
            torch.testing.assert_close(ours[name], buffer, msg=name)


def _same_gradients(base: nn.Module, model: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> None:
    base.zero_grad(), model.zero_grad()
    sum(b.float().square().sum() for _, b in pairs if b.requires_grad).backward()
    sum(a.float().square().sum() for a, _ in pairs if a.requires_grad).backward()
    ours = dict(model.named_parameters())
    for name, parameter in base.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(
                ours[name].grad, parameter.grad, rtol=1e-3, atol=1e-4, msg=name
            )


def applied(net: nn.Module, **settings: Any) -> Any:
    """`rlawrap.apply` of a network whose three blocks are to be found, all of them entered."""
    model = rlawrap.apply(net, k=4, **settings)
    assert [b.path for b in model.plan.blocks] == BODY
    assert all(b.entries for b in model.plan.blocks)
    return model
