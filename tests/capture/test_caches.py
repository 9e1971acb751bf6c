"""Grids that forward keeps from call to call, in the network and outside of it."""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.capture.caches import caches_in
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


class _Latest(OrderedDict[Any, Tensor]):
    """Keeps the one grid that was asked for last, as a cache of limited size does."""

    def __setitem__(self, key: Any, grid: Tensor) -> None:
        super().__setitem__(key, grid)
        if len(self) > 1:
            self.popitem(last=False)


_LATEST = _Latest()


def _in_the_latest(h: int, w: int) -> Tensor:
    if (h, w) not in _LATEST:
        _LATEST[h, w] = _row(h, w)
    return _LATEST[h, w]


_TABLE_OF_SCALES = {1: torch.tensor(1.0), 2: torch.tensor(0.5)}
WAYS = {
    "dict": _in_a_dict,
    "nested": _in_two,
    "default": _by_default,
    "closure": _in_a_closure,
    "class": Kept.grid,
    "latest": _in_the_latest,
    "lru": functools.lru_cache(_row),
}


class Grid(Net):
    def __init__(self, grid: Callable[[int, int], Tensor]) -> None:
        super().__init__()
        self.grid = grid

    def before(self, x: Tensor) -> Tensor:
        return x + self.grid(x.size(2), x.size(3))


@pytest.mark.parametrize("way", WAYS)
def test_grids_that_earlier_calls_left_do_not_matter(way: str) -> None:
    base = Grid(WAYS[way])
    for size in (16, 17, 224):
        base.eval()(torch.randn(1, 3, size, size))
    check(base, rlawrap.apply(base, k=4), images())


def test_a_table_of_tensors_by_number_is_read() -> None:
    base = Grid(lambda h, w: _TABLE_OF_SCALES[2])
    model = rlawrap.apply(base, k=4)
    check(base, model, images())
    assert list(_TABLE_OF_SCALES) == [1, 2] and type(next(iter(_TABLE_OF_SCALES))) is int


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_in_caches_outside(way: str) -> None:
    base = Grid(WAYS[way])
    model = rlawrap.apply(base, k=4)
    assert [b.path for b in model.plan.blocks] == BODY
    assert base.eval()(torch.randn(1, 3, 224, 224)).isfinite().all()
    check(base, model, images())


class _Loading(OrderedDict[str, Any]):
    """Loads what it is asked for, as the tables of large packages do."""

    def _load(self, *_: Any) -> Any:
        raise AssertionError("asked to load")

    values = items = keys = __iter__ = __len__ = __getitem__ = _load


class _LoadingList(list[Any]):
    def _load(self, *_: Any) -> Any:
        raise AssertionError("asked to load")

    __iter__ = __len__ = __getitem__ = _load  # type: ignore[assignment]


_TABLE = _Loading()
_LIST = _LoadingList([torch.zeros(1)])


def test_containers_with_methods_of_their_own_are_not_asked() -> None:
    found = caches_in(sys.modules[__name__])
    assert any(cache is _TABLE for cache in found) and any(cache is _LIST for cache in found)
    base = Grid(_in_a_dict)
    check(base, rlawrap.apply(base, k=4), images())


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
