"""Which methods of its own class a network's forward calls, and with which values."""

from __future__ import annotations

import functools
import inspect as pyinspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from torch import fx, nn

from rlawrap.capture.trace import MethodCall


def own_methods(cls: type) -> dict[str, FunctionType]:
    """The plain methods that a network's class adds to those of `nn.Module`, by name."""
    found: dict[str, FunctionType] = {}
    for base in cls.__mro__:
        if base is nn.Module:
            break
        for name, value in vars(base).items():
            if isinstance(value, FunctionType) and not hasattr(nn.Module, name):
                found.setdefault(name, value)
    return {n: f for n, f in found.items() if n != "forward" and not n.startswith("__")}


@contextmanager
def methods_recorded(
    root: nn.Module, now: Callable[[], fx.Node | None], nodes_of: Callable[[Any], Any]
) -> Iterator[list[MethodCall]]:
    """Collects the calls of the root's own methods, in the order they return.

    `now()` is the last node of the graph so far; calls where it is None are left out. `nodes_of`
    puts nodes in the place of a value's tensors.
    """
    calls: list[MethodCall] = []

    def recorder(name: str, method: FunctionType) -> Callable[..., Any]:
        @functools.wraps(method)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            began = now()
            if began is None:
                return method(root, *args, **kwargs)
            bound = pyinspect.signature(method).bind(root, *args, **kwargs)
            bound.apply_defaults()
            arguments = nodes_of(dict(list(bound.arguments.items())[1:]))
            out = method(root, *args, **kwargs)
            ended = now()
            if ended is not None:
                calls.append(MethodCall(name, arguments, nodes_of(out), began, ended))
            return out

        return recorded

    methods = own_methods(type(root))
    methods = {name: method for name, method in methods.items() if name not in vars(root)}
    for name, method in methods.items():
        root.__dict__[name] = recorder(name, method)
    try:
        yield calls
    finally:
        for name in methods:
            root.__dict__.pop(name, None)
