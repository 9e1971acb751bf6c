"""Deep copies of modules, also of what `copy.deepcopy` refuses in them.

PyTorch copies only tensors that a user made. `weight_norm` and `spectral_norm` by hooks keep the
weight that they computed as an attribute, and so do modules that store an activation. Nor does
Python copy the views of a dict: `self.scales = self.layers.keys()`.
"""

from __future__ import annotations

import copy
import gc
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, TypeVar

from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

T = TypeVar("T")

#: The method of a dict that makes a view of a type.
_VIEWS: dict[type, str] = {
    type(getattr(kind(), name)()): name
    for kind in (dict, OrderedDict)
    for name in ("keys", "values", "items")
}


class _Copying(TorchFunctionMode):
    """Copies a computed tensor without the graph that computed it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__ or args[0].is_leaf:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone()
        return memo[id(tensor)]


def deep_copy(value: T, memo: dict[int, Any] | None = None) -> T:
    """`copy.deepcopy`, in which a tensor that was computed becomes one that was not.

    A view of a dict that a module has as an attribute becomes that of the copied dict.

    >>> import torch
    >>> weight = torch.ones(2, requires_grad=True) * 2
    >>> deep_copy(weight)
    tensor([2., 2.])
    """
    memo = {} if memo is None else memo
    with _Copying():
        copy_views(value, memo)
        return copy.deepcopy(value, memo)


def copy_views(value: Any, memo: dict[int, Any]) -> None:
    """Put into `memo` the copies of all views that the modules in `value` have as attributes.

    `value` is a module, or what one has in its `__dict__`.
    """
    for space in _spaces(value):
        for view in list(space.values()):
            name = _VIEWS.get(type(view))
            if name is not None:
                (viewed,) = gc.get_referents(view)
                memo[id(view)] = getattr(copy.deepcopy(viewed, memo), name)()


def _spaces(value: Any) -> Iterator[dict[str, Any]]:
    """What each of the modules has in its `__dict__`."""
    if isinstance(value, nn.Module):
        yield from map(vars, value.modules())
    elif isinstance(value, dict):
        yield value
        for child in (value.get("_modules") or {}).values():
            yield from _spaces(child)


def copy_graph(graph: fx.Graph) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """A copy of a graph, and its nodes by those that they are copies of."""
    copied, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    copied.output(copied.graph_copy(graph, copies))
    return copied, copies
