"""Grids that forward keeps from call to call, in the network and outside of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.capture.checking import BODY, Net, check, images


def _row(h: int, w: int) -> Tensor:
    return torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(1, 1, h, w)


_GRIDS: dict[Any, Tensor] = {}
_NESTED: dict[str, dict[Any, Tensor]] = {"grids": {}}


def _in_a_dict(h: int, w: int) -> Tensor:
    if (h, w) not in _GRIDS:
        _GRIDS[h, w] = _row(h, w)
    return _GRIDS[h, w]


def _in_two(h: int, w: int) -> Tensor:
    return _NESTED["grids"].setdefault((h, w), _row(h, w))


def _by_default(h: int, w: int, memo: dict[Any, Tensor] = {}) -> Tensor:  # noqa: B006
    if (h, w) not in memo:
        memo[h, w] = _row(h, w)
    return memo[h, w]


def _enclosed() -> Callable[[int, int], Tensor]:
    memo: dict[Any, Tensor] = {}

    def grid(h: int, w: int) -> Tensor:
        if (h, w) not in memo:
            memo[h, w] = _row(h, w)
        return memo[h, w]

    return grid


class Kept:
    grids: dict[Any, Tensor] = {}  # noqa: RUF012

    @staticmethod
    def grid(h: int, w: int) -> Tensor:
        if (h, w) not in Kept.grids:
            Kept.grids[h, w] = _row(h, w)
        return Kept.grids[h, w]


_in_a_closure = _enclosed()
WAYS = {
    "dict": _in_a_dict,
    "nested": _in_two,
    "default": _by_default,
    "closure": _in_a_closure,
    "class": Kept.grid,
    "lru": functools.lru_cache(_row),
}


class Grid(Net):
    def __init__(self, grid: Callable[[int, int], Tensor]) -> None:
        super().__init__()
        self.grid = grid

    def before(self, x: Tensor) -> Tensor:
        return x + self.grid(x.size(2), x.size(3))


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_in_caches_outside(way: str) -> None:
    base = Grid(WAYS[way])
    model = rlawrap.apply(base, k=4)
    assert [b.path for b in model.plan.blocks] == BODY
    assert base.eval()(torch.randn(1, 3, 224, 224)).isfinite().all()
    check(base, model, images())


class ByShape(nn.Module):
    """A head that makes its grid anew when the image is of another shape than the last."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = [torch.empty(0)]

    def forward(self, x: Tensor) -> Tensor:
        if self.grid[0].shape[2:] != x.shape[2:]:
            self.grid[0] = _row(x.size(2), x.size(3))
        return x + self.grid[0]


class Head(Net):
    def __init__(self) -> None:
        super().__init__()
        self.head = ByShape()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.head(self.body(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize("ran_at", [None, 16, 224])
def test_what_ran_before_does_not_matter(ran_at: int | None) -> None:
    base = Head()
    if ran_at is not None:
        base.eval()(torch.randn(1, 3, ran_at, ran_at))
    with pytest.warns(rlawrap.RLAWarning, match="sets its attribute 'grid'"):
        model = rlawrap.apply(base, k=4)
    check(base, model, images())
