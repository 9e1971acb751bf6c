"""What a network's code keeps outside the network: grids by size, in dicts of its Python modules.

A recorded call would leave tensors without memory there, for the network's next own call to find.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from rlawrap.capture.effects import copy_of, refill
from rlawrap.capture.sizes import stored

#: The cell of a variable that a function encloses and that has no value yet.
EMPTY = types.CellType()


def caches_in(owner: Any) -> list[Any]:
    """Lists and dicts of a Python module or class that may be caches of tensors.

    Its variables, and those of its functions and classes: attributes, default arguments, what a
    function encloses. Only what is empty or holds tensors.
    """
    return [c for value in list(vars(owner).values()) for c in _of(value, owner) if _may_cache(c)]


@contextmanager
def kept(caches: Iterable[Any]) -> Iterator[None]:
    """Put back what lists and dicts hold, at the end; until then no size is one of their keys.

    What the network's earlier calls left there is of their sizes, and a recording asks for a grid
    of its own.
    """
    before = [(cache, copy_of(cache)) for cache in {id(c): c for c in caches}.values()]
    for cache, contents in before:
        if isinstance(cache, dict) and contents:
            refill(cache, stored(contents))
    try:
        yield
    finally:
        for cache, contents in before:
            if _parts(cache) != _parts(contents):
                refill(cache, contents)


def enclosed(function: types.FunctionType) -> list[Any]:
    """What a function encloses."""
    return [c.cell_contents for c in function.__closure__ or () if c != EMPTY]


def _of(value: Any, owner: Any) -> Iterator[Any]:
    """The lists and dicts in a variable of `owner`."""
    if isinstance(value, (dict, list)):
        yield value
        yield from (v for v in _values(value) if isinstance(v, (dict, list)))
    elif isinstance(value, (staticmethod, classmethod)):
        yield from _of(value.__func__, owner)
    elif isinstance(value, types.FunctionType):
        own = (value.__defaults__ or (), (value.__kwdefaults__ or {}).values())
        yield from (v for values in own for v in values if isinstance(v, (dict, list)))
        yield from (v for v in enclosed(value) if isinstance(v, (dict, list)))
    elif isinstance(value, type) and value.__module__ == getattr(owner, "__name__", ""):
        yield from (c for v in list(vars(value).values()) for c in _of(v, value))


def _may_cache(value: Any) -> bool:
    """Whether a list or dict is empty or holds tensors, or tuples of them."""
    held = _values(value)
    first = held[0] if held else None
    if isinstance(first, (tuple, list)):
        first = next(iter(first), None)
    return not held or isinstance(first, Tensor)


def _values(cache: Any) -> list[Any]:
    """What a list or dict holds."""
    held = copy_of(cache)
    return list(held.values()) if isinstance(held, dict) else held


def _parts(cache: Any) -> list[int]:
    """What a list or dict holds, by id: keys made of sizes would tell of a comparison."""
    held = copy_of(cache)
    if isinstance(held, dict):
        return [id(part) for item in held.items() for part in item]
    return list(map(id, held))
