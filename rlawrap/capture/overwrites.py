"""Nodes that overwrite a tensor in place, and who reads that tensor afterwards."""

from __future__ import annotations

from torch import fx, nn

from rlawrap.capture.tensors import assign
from rlawrap.capture.trace import Trace

_IN_PLACE_OPERATORS = {
    "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor",
}  # fmt: skip


def writes_in_place(module: nn.Module | None, node: fx.Node) -> fx.Node | None:
    """The node whose tensor `node` overwrites and returns, or None; `module` is what it calls."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    if not isinstance(first, fx.Node):
        return None
    if node.op == "call_module":
        return first if getattr(module, "inplace", False) else None
    if node.op == "call_method":
        name = str(node.target)
        return first if name.endswith("_") and not name.endswith("__") else None
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        if node.target is assign:
            return first
        if name in _IN_PLACE_OPERATORS or node.kwargs.get("inplace") is True:
            return first
        if name.endswith("_") and not name.endswith("__"):
            return first
        if len(node.args) > 1 and node.args[-1] is True and _inplace_is_last(node):
            return first
    return None


def _inplace_is_last(node: fx.Node) -> bool:
    code = getattr(node.target, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    return "inplace" in names and names.index("inplace") == len(node.args) - 1


def relink(trace: Trace) -> None:
    """Let every later reader of an overwritten tensor read the node that overwrote it.

    `y.add_(x)` and `self.relu(y)` may drop their result and go on with `y`. Both names are one
    tensor, so the rewrite changes no value; it makes the data flow visible to the graph.
    """
    position = {node: i for i, node in enumerate(trace.graph.nodes)}
    for node in list(trace.graph.nodes):
        target = writes_in_place(trace.leaf(node), node)
        if target is None or target.op in ("get_attr",):
            continue
        trace.writers.setdefault(target, []).append(node)
        for user in list(target.users):
            if user is not node and position[user] > position[node]:
                user.replace_input_with(target, node)
