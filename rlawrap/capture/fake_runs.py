"""Running one node of a graph on fake tensors, each operation once for each set of shapes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from rlawrap._torch import ASSERT, has_forward_hooks, pytree, unset_fake_temporarily
from rlawrap.capture.trace import Trace
from rlawrap.errors import PlanError


def _call_leaf(trace: Trace, leaf: nn.Module, args: Any, kwargs: Any) -> Any:
    """Call a leaf on fake tensors; one whose code asks for values runs on real ones.

    Only a module that was kept whole because tracing could not follow it comes to that.
    """
    try:
        return leaf(*args, **kwargs)
    except Exception:
        if type(leaf).__module__.startswith("torch.nn."):
            raise

        def real(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            random = value.is_floating_point()
            return (torch.rand if random else torch.zeros)(
                tuple(value.shape), dtype=value.dtype, device=value.device
            )

        with unset_fake_temporarily(), torch.random.fork_rng(devices=[]):
            tensors = [*leaf.named_parameters(), *leaf.named_buffers()]
            memo = {
                id(t): nn.Parameter(real(t), t.requires_grad)
                if isinstance(t, nn.Parameter)
                else real(t)
                for _, t in tensors
            }
            twin = copy.deepcopy(leaf, memo)
            out = twin(*pytree.tree_map(real, args), **pytree.tree_map(real, kwargs))
        return pytree.tree_map_only(torch.Tensor, trace.fake_mode.from_tensor, out)


def run_node(
    trace: Trace,
    node: fx.Node,
    modules: Mapping[str, nn.Module],
    env: Mapping[fx.Node, Any],
    values: Mapping[str, Any],
    known: dict[Any, Any] | None,
) -> Any:
    """What one node returns on fake tensors; `known` keeps results by operation and shapes."""
    if node.op == "placeholder":
        if node.target in values:
            return values[str(node.target)]
        if node.args:
            return node.args[0]
        raise PlanError(f"the input {node.target!r} has no value; pass example_input=")
    if node.op == "get_attr":
        value: Any = trace.root
        for atom in str(node.target).split("."):
            value = getattr(value, atom)
        return value
    args = fx.node.map_arg(node.args, env.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, env.__getitem__)
    if node.op == "output" or _asserts_values(node, args):
        return None
    key = None if known is None else _key(node, modules, args, kwargs)
    if key is not None and known is not None and key in known:
        return known[key]
    result: Any
    if node.op == "call_module":
        result = _call_leaf(trace, modules[str(node.target)], args, kwargs)
    elif node.op == "call_method":
        result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
    else:
        result = node.target(*args, **kwargs)  # type: ignore[operator]
    if key is not None and known is not None:
        known[key] = result
    return result


def _asserts_values(node: fx.Node, args: Any) -> bool:
    """An assertion about the values of a tensor, which a fake one has not."""
    return node.target is ASSERT and isinstance(args[0], torch.Tensor)


_RESHAPES_IN_PLACE = frozenset(
    "squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_ resize_ resize_as_ set_ "
    "as_strided_".split()
)


def keeps_shapes(trace: Trace) -> bool:
    """Whether no node changes the shape of a tensor that exists, so that results can be shared."""
    return all(n.target not in _RESHAPES_IN_PLACE for n in trace.graph.nodes)


def _key(node: fx.Node, modules: Mapping[str, nn.Module], args: Any, kwargs: Any) -> Any:
    """What the shape of a result depends on, or None: a deep network repeats its operations."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        plain = type(module).__module__.startswith("torch.nn.modules.")
        hooked = has_forward_hooks(module)
        if not plain or hooked or next(module.children(), None) is not None:
            return None
        weight = getattr(module, "weight", None)
        dtype = weight.dtype if isinstance(weight, torch.Tensor) else None
        called: Any = (type(module), module.extra_repr(), module.training, dtype)
    elif node.op == "call_method" or getattr(node.target, "__module__", "") in _PURE_MODULES:
        called = node.target
    else:
        return None
    try:
        key = (called, _signature(args), _signature(kwargs))
        hash(key)
    except TypeError:
        return None
    return key


_PURE_MODULES = (None, "_operator", "torch", "torch.nn.functional", "torch._C._nn")


def _signature(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype, value.device)
    if isinstance(value, (tuple, list)):
        return tuple(_signature(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _signature(item)) for name, item in value.items())
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    return (type(value), value)
