"""Running one node of a graph on meta tensors, each operation once for each set of shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from rlawrap._torch import ASSERT, asks_for_value
from rlawrap.capture.meta import empty_like
from rlawrap.capture.nodes import holds_tensor
from rlawrap.capture.results import key_of_function, key_of_module
from rlawrap.capture.trace import Trace
from rlawrap.capture.values import item_of, list_of, values_of
from rlawrap.capture.whole import run_whole


def run_node(
    trace: Trace,
    node: fx.Node,
    modules: Mapping[str, nn.Module],
    env: Mapping[fx.Node, Any],
    values: Mapping[str, Any],
    known: dict[Any, Any] | None,
) -> Any:
    """What one node returns on meta tensors; `known` keeps results by operation and shapes.

    The mode of meta tensors is on for what runs alone: in it every question asked of a tensor, such
    as its shape for a key, takes a call of Python's.
    """
    if node.op == "placeholder":
        if node.target in values:
            return values[str(node.target)]
        star = str(node.target).partition(str(node.target).lstrip("*"))[0]
        return {"*": (), "**": {}}[star] if star else node.args[0]
    if node.op == "get_attr":
        if node.target in trace.constants:
            return empty_like(trace.constants[str(node.target)])
        value: Any = trace.root
        with trace.on_meta():  # a weight may be computed where it is read
            for atom in str(node.target).split("."):
                value = getattr(value, atom)
        return value
    args, kwargs = _plain(fx.node.map_arg((node.args, node.kwargs), env.__getitem__))
    if node.op == "output" or _asserts_values(node, args):
        return None
    key = None if known is None else _key(node, modules, args, kwargs)
    if key is not None and known is not None and key in known:
        return known[key]
    with trace.on_meta():
        result, by_shapes = _result(trace, node, modules, env, args, kwargs)
    if key is not None and known is not None and by_shapes:
        known[key] = result
    return result


def _result(
    trace: Trace,
    node: fx.Node,
    modules: Mapping[str, nn.Module],
    env: Mapping[fx.Node, Any],
    args: Any,
    kwargs: Any,
) -> tuple[Any, bool]:
    """What a node that calls something returns, and whether the shapes of its arguments tell it.

    Where it reads numbers in tensors (`F.pad(x, self.padding)`) the values tell it.
    """

    def value(source: Any) -> Any:
        known = {**trace.constants, **trace.attributes}
        numbers = {n: v for n, v in env.items() if not holds_tensor(v)}
        return values_of(source, known, numbers, RuntimeError)[0]

    if node.target in (item_of, list_of):
        return node.target(value(node.args[0])), False  # type: ignore[operator]
    if node.op == "call_module":
        module, device = modules[str(node.target)], trace.shadow.device
        out = trace.shadow.results.call_module(
            module, lambda: run_whole(module, args, kwargs, device), args, kwargs
        )
        return out, True
    called: Any = node.target
    if node.op == "call_method":
        called = getattr(args[0], str(node.target))
        args = args[1:]
    try:
        return called(*args, **kwargs), True
    except RuntimeError as error:
        if not asks_for_value(error):
            raise

    def number(source: fx.Node) -> Any:
        scalar = isinstance(env[source], torch.Tensor) and env[source].dim() == 0
        return value(source).item() if scalar else env[source]

    args, kwargs = _plain(fx.node.map_arg((node.args, node.kwargs), number))
    return called(*(args[1:] if node.op == "call_method" else args), **kwargs), False


def _plain(value: Any) -> Any:
    """Plain lists and dicts, which what is called may change, in the place of those of `fx`."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(_plain, value)) if type(value) is tuple else value
    if isinstance(value, list):
        return list(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _asserts_values(node: fx.Node, args: Any) -> bool:
    """An assertion about the values of a tensor, which a meta tensor has not."""
    return node.target is ASSERT and isinstance(args[0], torch.Tensor)


_RESHAPES_IN_PLACE = frozenset(
    "squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_ resize_ resize_as_ set_ "
    "as_strided_".split()
)


def keeps_shapes(trace: Trace) -> bool:
    """Whether no node changes the shape of a tensor that exists, so that results can be shared."""
    return all(n.target not in _RESHAPES_IN_PLACE for n in trace.graph.nodes)


def _key(node: fx.Node, modules: Mapping[str, nn.Module], args: Any, kwargs: Any) -> Any:
    """What the shape of a node's result depends on, or None."""
    if node.op == "call_module":
        return key_of_module(modules[str(node.target)], args, kwargs)
    return key_of_function(node.target, args, kwargs)
