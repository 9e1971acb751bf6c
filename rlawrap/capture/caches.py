"""What a network's code keeps outside the network: grids by size, in dicts of its Python modules.

A recorded call would leave tensors without memory there, for the network's next own call to find.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


def caches_in(owner: Any) -> list[Any]:
    """Lists and dicts of a Python module or class that may be caches of tensors.

    Its variables, and those of its functions and classes: attributes, default arguments, what a
    function encloses. Only what is empty or holds tensors.
    """
    return [c for value in list(vars(owner).values()) for c in _of(value, owner) if _may_cache(c)]


@contextmanager
def kept(caches: Iterable[Any]) -> Iterator[None]:
    """Put back what lists and dicts hold, at the end."""
    before = [(cache, _contents(cache)) for cache in caches]
    try:
        yield
    finally:
        for cache, contents in before:
            if list(map(id, _contents(cache))) != list(map(id, contents)):
                _refill(cache, contents)


def _of(value: Any, owner: Any) -> Iterator[Any]:
    """The lists and dicts in a variable of `owner`."""
    if isinstance(value, (dict, list)):
        yield value
        inner = value.values() if isinstance(value, dict) else value
        yield from (v for v in list(inner) if isinstance(v, (dict, list)))
    elif isinstance(value, (staticmethod, classmethod)):
        yield from _of(value.__func__, owner)
    elif isinstance(value, types.FunctionType):
        own = (value.__defaults__ or (), (value.__kwdefaults__ or {}).values())
        yield from (v for values in own for v in values if isinstance(v, (dict, list)))
        for cell in value.__closure__ or ():
            held = None if cell == types.CellType() else cell.cell_contents
            if isinstance(held, (dict, list)):
                yield held
    elif isinstance(value, type) and value.__module__ == getattr(owner, "__name__", ""):
        yield from (c for v in list(vars(value).values()) for c in _of(v, value))


def _may_cache(value: Any) -> bool:
    """Whether a list or dict is empty or holds tensors, or tuples of them."""
    first = next(iter(value.values() if isinstance(value, dict) else value), None)
    if isinstance(first, (tuple, list)):
        first = next(iter(first), None)
    return not value or isinstance(first, Tensor)


def _contents(cache: Any) -> list[Any]:
    """What a list holds, or the keys and values of a dict in turn."""
    if isinstance(cache, dict):
        return [part for item in list(cache.items()) for part in item]
    return list(cache)


def _refill(cache: Any, contents: list[Any]) -> None:
    cache.clear()
    if isinstance(cache, dict):
        cache.update(zip(contents[::2], contents[1::2], strict=True))
    else:
        cache.extend(contents)
