"""Methods that were bound to a network itself: `model.forward = types.MethodType(function, model)`.

Everything here reads a network's methods off its class. So a copy of ours gets a class in which
they stand, and what is given back to the user has them on the instance again.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any, TypeVar

from torch import nn

Functions = Mapping[str, FunctionType]
Network = TypeVar("Network", bound=nn.Module)


class WithBound:
    """Mixed into a class that has the bound methods of one network as its own."""

    _rla_bound: Functions

    def __init_subclass__(cls, **settings: Any) -> None:
        """Pass nothing on: registries of a network's subclasses are for those someone wrote."""


def bound_methods(network: nn.Module) -> dict[str, FunctionType]:
    """The functions bound to a network and kept on it, by name.

    Not those that hold a module otherwise than as `self`: bound to a copy, they run that module
    still.

    >>> net = nn.Linear(1, 1)
    >>> net.twice = types.MethodType(lambda self, x: self(self(x)), net)
    >>> list(bound_methods(net))
    ['twice']
    """
    return {
        name: value.__func__
        for name, value in vars(network).items()
        if isinstance(value, MethodType)
        and value.__self__ is network
        and isinstance(value.__func__, FunctionType)
        and not _holds_module(value.__func__, set())
    }


def _holds_module(value: Any, seen: set[int]) -> bool:
    """Whether a module can be reached from a function by what it closes over and its defaults."""
    if id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, nn.Module):
        return True
    inner: list[Any] = []
    if isinstance(value, FunctionType):
        inner += [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        inner += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    elif isinstance(value, MethodType):
        inner += [value.__self__, value.__func__]
    elif isinstance(value, functools.partial):
        inner += [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, (list, tuple)):
        inner += value
    elif isinstance(value, dict):
        inner += value.values()
    return any(_holds_module(part, seen) for part in inner)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def put_into_class(network: nn.Module, methods: Functions) -> None:
    """Give a network a class below its own that has `methods`, and take them off the instance."""
    if not methods:
        return
    cls = type(network)
    body = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        **methods,
        "_rla_bound": dict(methods),
    }
    for name in methods:
        vars(network).pop(name, None)
    network.__class__ = types.new_class(
        cls.__name__, (WithBound, cls), exec_body=lambda space: space.update(body)
    )


def put_back(network: Network, cls: type) -> Network:
    """Undo `put_into_class`, which made `cls`: the network's class is the user's again."""
    if issubclass(cls, WithBound):
        if isinstance(network, WithBound):
            network.__class__ = type(network).__mro__[2]
        bind(network, cls._rla_bound)
    return network


def bind(network: nn.Module, methods: Functions) -> None:
    """Set functions on a network as methods of it."""
    for name, function in methods.items():
        vars(network)[name] = MethodType(function, network)


def unbind(network: nn.Module) -> dict[str, FunctionType]:
    """Take off the bound methods that do not come back with a pickled network.

    Python writes a method as its object and its function's name, and looks that up in the class.
    """
    methods = {
        name: function
        for name, function in bound_methods(network).items()
        if getattr(type(network), function.__name__, None) is not function
        or name == function.__name__
    }
    for name in methods:
        del vars(network)[name]
    return methods
