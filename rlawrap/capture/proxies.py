"""Proxies that answer what a forward asks of a tensor where shapes alone decide."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx


class NoAnswer(Exception):
    """A question about shapes whose answer tracing cannot know; the text says why."""


class _Answering:
    """Of a proxy: `len`, `int`, `range` and iteration, where shapes alone decide."""

    tracer: Any

    def __getattr__(self, name: str) -> Any:
        return AskedAttribute(self, name)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return int(self.tracer.ask(self, len))

    def __int__(self) -> int:
        value = int(self.tracer.ask(self, int))
        proxy: Any = self
        self.tracer.hold(proxy == value)
        return value

    __index__ = __int__


def _in_place(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operation, (self, other), {})

    return method


# fx records `x += y` as an addition; other names of the tensor would miss it then.
for _name in "add sub mul truediv floordiv mod pow and or xor".split():
    setattr(_Answering, f"__i{_name}__", _in_place(getattr(operator, f"i{_name}")))


class AskedProxy(_Answering, fx.Proxy):
    """A proxy that answers questions about shapes."""


class AskedAttribute(_Answering, fx.proxy.Attribute):
    """The same for an attribute of a proxy, such as `x.shape`."""


class NoKeywords(dict[str, Any]):
    """`**kwargs` while tracing; a plain dict would make fx flatten all arguments into a tree."""


class NoArguments(tuple[Any, ...]):
    """`*args` while tracing."""


def nodes_of(value: Any) -> Any:
    """Proxies in a value replaced by their nodes; dicts, tuples and lists are kept."""
    if isinstance(value, fx.Proxy):
        return value.node
    if isinstance(value, dict):
        return {key: nodes_of(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(nodes_of, value))
    if isinstance(value, (tuple, list)):
        kind = tuple if isinstance(value, tuple) else list
        return kind(map(nodes_of, value))
    return value
