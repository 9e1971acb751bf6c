"""What forward returns, as the argument of a graph's output: its class and structure are kept."""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx


@functools.cache
def maker_of(cls: type) -> Callable[[Any, Any], Any]:
    """A function of items and attributes that makes objects of a class; a graph can name it."""

    def make(items: Any, attributes: Any) -> Any:
        return _made_again(cls, items, attributes)

    make.__name__ = make.__qualname__ = cls.__name__
    make.__module__ = cls.__module__
    make.makes_output = True  # type: ignore[attr-defined]
    return make


def _made_again(cls: type, items: Any, attributes: Any) -> Any:
    """An object of a class with these items (of a list, tuple or dict) and these attributes.

    Made without the class's own constructor, which may want other arguments.
    """
    if issubclass(cls, tuple):
        made: Any = tuple.__new__(cls, items)
    else:
        made = cls.__new__(cls)
    if issubclass(cls, OrderedDict):
        for key, value in items:
            OrderedDict.__setitem__(made, key, value)
    elif issubclass(cls, dict):
        dict.update(made, items)
    elif issubclass(cls, list):
        list.extend(made, items)
    for name, value in attributes:
        object.__setattr__(made, name, value)
    return made


def output_of(
    value: Any,
    holder: Callable[[Any], fx.Node | None],
    arg: Callable[[Any], Any],
    call: Callable[..., fx.Node],
    lost: Callable[[str], Exception],
) -> Any:
    """A returned value with nodes for its tensors.

    `holder` gives the node that a structure is the value of, `arg` that of a plain value.

    Raises what `lost` makes for an object that cannot be made again.
    """

    def part(item: Any) -> Any:
        return output_of(item, holder, arg, call, lost)

    whole = holder(value) if isinstance(value, (tuple, list, dict)) else None
    if whole is not None:
        return whole
    if type(value) in (tuple, list):
        return type(value)(map(part, value))
    if type(value) is dict:
        return {key: part(item) for key, item in value.items()}
    if type(value) is OrderedDict:
        return call(OrderedDict, ([(key, part(item)) for key, item in value.items()],))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return call(type(value), tuple(map(part, value)))
    if isinstance(value, (Tensor, int, float, str)) or not _holds_tensor(value):
        return arg(value)
    items: Any = ()
    if isinstance(value, dict):
        items = [(key, part(item)) for key, item in value.items()]
    elif isinstance(value, (tuple, list)):
        items = list(map(part, value))
    attributes = [(name, part(item)) for name, item in _attributes(value)]
    if not items and not attributes:
        raise lost(f"returns a {type(value).__name__}, whose tensors are not to be seen")
    maker = maker_of(type(value))  # type: ignore[arg-type]
    return call(maker, (items, attributes))


def _attributes(value: Any) -> list[tuple[str, Any]]:
    if dataclasses.is_dataclass(value) and not hasattr(value, "__dict__"):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    return list(getattr(value, "__dict__", {}).items())


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Tensor):
        return True
    if isinstance(value, dict):
        return any(map(_holds_tensor, value.values()))
    if isinstance(value, (tuple, list)):
        return any(map(_holds_tensor, value))
    return any(_holds_tensor(item) for _, item in _attributes(value))
