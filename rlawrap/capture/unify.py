"""Two traces, of eval and of train mode, into one graph that follows `training` where it can."""

from __future__ import annotations

from typing import Any

from torch import fx

from rlawrap.capture.trace import Trace


def unify(evaluated: Trace, trained: Trace) -> Trace | None:
    """Make the eval graph follow `training`, or return None where one graph cannot.

    Node by node the two graphs must call the same things. Where an argument is a bool that is the
    mode itself, a node that reads `<owner>.training` takes its place, so that one graph behaves as
    the network does in either mode.
    """
    pairs = list(zip(evaluated.graph.nodes, trained.graph.nodes, strict=False))
    if len(evaluated.graph.nodes) != len(trained.graph.nodes):
        return None
    twin = {t: e for e, t in pairs}
    changed: list[tuple[fx.Node, Any, Any]] = []
    for e, t in pairs:
        if (e.op, e.target) != (t.op, t.target):
            return None
        mine, its = (e.args, e.kwargs), (t.args, t.kwargs)
        if not _same(mine, its, twin):
            if not _same(mine, its, twin, modes=True):
                return None
            changed.append((e, mine, its))
    for node, mine, its in changed:
        with evaluated.graph.inserting_before(node):
            path = evaluated.owner(node)[0]
            flag = evaluated.graph.get_attr(f"{path}.training" if path else "training")
        evaluated.stacks[flag] = evaluated.stacks[node]
        node.args, node.kwargs = _substitute(mine, its, flag)
    return evaluated


def _same(a: Any, b: Any, twin: dict[fx.Node, fx.Node], modes: bool = False) -> bool:
    if isinstance(a, fx.Node) or isinstance(b, fx.Node):
        return isinstance(b, fx.Node) and twin.get(b) is a
    if isinstance(a, (tuple, list)):
        return (
            isinstance(b, (tuple, list))
            and len(a) == len(b)
            and all(_same(x, y, twin, modes) for x, y in zip(a, b, strict=True))
        )
    if isinstance(a, dict):
        return (
            isinstance(b, dict)
            and a.keys() == b.keys()
            and all(_same(a[k], b[k], twin, modes) for k in a)
        )
    if isinstance(a, slice):
        return isinstance(b, slice) and _same(
            (a.start, a.stop, a.step), (b.start, b.stop, b.step), twin, modes
        )
    if modes and a is False and b is True:
        return True
    return type(a) is type(b) and bool(a == b)


def _substitute(a: Any, b: Any, flag: fx.Node) -> Any:
    """`a` with `flag` wherever it is False and `b`, its twin, is True."""
    if isinstance(a, (tuple, list)):
        return type(a)(_substitute(x, y, flag) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return {k: _substitute(a[k], b[k], flag) for k in a}
    return flag if a is False and b is True else a
