"""Sequentials, lists and dicts as the root: their own reading sees the base's children alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from rlawrap.errors import PlanError

_READING = (
    "__len__", "__iter__", "__getitem__", "__contains__", "__add__", "__mul__", "keys", "values",
    "items", "__dir__",
)  # fmt: skip
_CHANGING = (
    "append", "extend", "insert", "pop", "clear", "popitem", "update", "__delitem__", "__iadd__",
    "__imul__",
)  # fmt: skip


def container_methods(
    base: type[nn.Module], bare: Callable[[nn.Module], nn.Module]
) -> dict[str, Any]:
    """Methods for the class of a rewritten container; none for other networks.

    `bare` gives the network without `rla`.
    """
    if not issubclass(base, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return {}
    body: dict[str, Any] = {}
    for name in _READING:
        if hasattr(base, name):
            body[name] = _reading(getattr(base, name), bare)
    if hasattr(base, "__setitem__"):
        body["__setitem__"] = _setting(base.__setitem__, bare)
    for name in _CHANGING:
        if hasattr(base, name):
            body[name] = _changing(name)
    return body


def _reading(method: Callable[..., Any], bare: Callable[[nn.Module], nn.Module]) -> Any:
    def read(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return method(bare(self), *args, **kwargs)

    return read


def _setting(method: Callable[..., Any], bare: Callable[[nn.Module], nn.Module]) -> Any:
    def replace(self: nn.Module, key: Any, module: nn.Module) -> None:
        view = bare(self)
        method(view, key, module)
        if view._modules.keys() - self._modules.keys():
            _changing("__setitem__")(self)
        self._modules.update(view._modules)

    return replace


def _changing(name: str) -> Any:
    def change(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        raise PlanError(
            f"{name}: the layers of a rewritten network are fixed; change those of the base "
            "(rlawrap.unwrap(model)) and apply again."
        )

    return change
