"""A name for every recurrent cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rlawrap.cells.base import Cell
from rlawrap.errors import ConfigError, did_you_mean

_CELLS: dict[str, type[Cell]] = {}
C = TypeVar("C", bound=type[Cell])


def register_cell(name: str) -> Callable[[C], C]:
    """Register a `Cell` class as `RLAConfig(cell=name)`. A name that is taken is an error.

    Raises `ConfigError` where it is used without a name (`@register_cell`).
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"@register_cell was used on {getattr(name, '__name__', name)!r} without a name: "
            'write @register_cell("my_cell").'
        )

    def register(cls: C) -> C:
        if not (isinstance(cls, type) and issubclass(cls, Cell)):
            raise ConfigError(f"register_cell({name!r}): {cls!r} is no subclass of rlawrap.Cell.")
        if _CELLS.get(name, cls) is not cls:
            raise ConfigError(f"register_cell({name!r}): taken by {_CELLS[name].__name__}.")
        _CELLS[name] = cls
        return cls

    return register


def get_cell(name: str) -> type[Cell]:
    """The class of a registered cell. Raises `ConfigError` with the names that exist."""
    if name not in _CELLS:
        hint = did_you_mean(name, _CELLS, "`cell={!r}`".format)
        raise ConfigError(
            f"cell={name!r}: no such cell; there are {', '.join(list_cells())}.{hint}"
        )
    return _CELLS[name]


def list_cells() -> list[str]:
    """Names of the registered cells, sorted."""
    return sorted(_CELLS)
