"""A recurrent cell's step, written into a graph: its layers and tensors stand for nodes there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlawrap.cells import Cell, fast_tanh
from rlawrap.errors import ConfigError


def write_step(
    cell: Cell,
    parts: Mapping[str, nn.Module],
    graph: fx.Graph,
    made: Callable[[fx.Node], fx.Node],
    u: fx.Node,
    state: tuple[fx.Node, ...],
) -> tuple[fx.Node, ...]:
    """The nodes of the next state; `parts` holds the cell's layers, by the paths of their holders.

    `made` is told of every new node. Raises `ConfigError` for a step that no graph can hold.
    """
    tracer = _CellTracer(cell, graph, made)
    proxies = tuple(fx.Proxy(h, tracer) for h in state)
    after = cell.step(_Parts(parts, tracer), fx.Proxy(u, tracer), proxies)  # type: ignore[arg-type]
    kinds = isinstance(after, (tuple, list)) and all(isinstance(h, fx.Proxy) for h in after)
    if not kinds or len(after) != cell.states:
        raise ConfigError(
            f"the cell {type(cell).__name__}: step returns a tuple of its {cell.states} state "
            f"tensors, got {type(after).__name__}. Return (h,), or set the class's "
            "attribute states."
        )
    return tuple(h.node for h in after)  # type: ignore[attr-defined]


class _CellTracer(fx.proxy.GraphAppendingTracer):
    """Appends what a cell's step computes, tanh by its faster form, and tells of every node."""

    def __init__(self, cell: Cell, graph: fx.Graph, made: Callable[[fx.Node], fx.Node]) -> None:
        super().__init__(graph)
        self.cell, self.made = cell, made

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        function = fast_tanh if target is torch.tanh else target
        return self.made(super().create_node(kind, function, *args, **kwargs))

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor):
            raise ConfigError(
                f"the cell {type(self.cell).__name__}: step computes with a tensor of shape "
                f"{tuple(a.shape)} that the model does not hold. Return it by name from shared() "
                'or own() (an nn.Parameter to be trained), and read it as layers["its name"].'
            )
        return super().create_arg(a)


class _Parts(Mapping[str, Any]):
    """The layers and tensors of a cell by name; a tensor is a node from when it is asked for."""

    def __init__(self, holders: Mapping[str, nn.Module], tracer: _CellTracer) -> None:
        self.tracer = tracer
        self.found = {
            name: (value, f"{path}.{name}")
            for path, holder in holders.items()
            for table in (holder._modules, holder._parameters, holder._buffers)
            for name, value in table.items()
        }

    def __getitem__(self, name: str) -> Any:
        return _standing_for(*self.found[name], self.tracer)

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


def _standing_for(value: Any, path: str, tracer: _CellTracer) -> Any:
    """What a step gets for a layer, a tensor or another attribute of a layer."""
    if isinstance(value, nn.Module):
        return _Layer(value, path, tracer)
    if isinstance(value, Tensor):
        return tracer.create_proxy("get_attr", path, (), {})
    return value


class _Layer:
    """A layer of a cell, whose calls are nodes; its attributes are the layer's own."""

    def __init__(self, module: nn.Module, path: str, tracer: _CellTracer) -> None:
        self._module, self._path, self._tracer = module, path, tracer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._tracer.create_proxy("call_module", self._path, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return _standing_for(getattr(self._module, name), f"{self._path}.{name}", self._tracer)

    def __getitem__(self, key: Any) -> Any:
        part = self._module[key]  # type: ignore[index]
        tables = (self._module._modules, self._module._parameters)
        name = next(n for table in tables for n, value in table.items() if value is part)
        return _standing_for(part, f"{self._path}.{name}", self._tracer)
