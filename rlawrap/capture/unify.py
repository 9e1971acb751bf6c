"""Two traces, of eval and of train mode, into one graph that follows `training` where it can."""

from __future__ import annotations

from typing import Any

from torch import fx

from rlawrap.capture.compare import same_value
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
    twin = dict(pairs)
    changed: list[tuple[fx.Node, Any, Any]] = []
    for e, t in pairs:
        if (e.op, e.target) != (t.op, t.target):
            return None
        mine, its = (e.args, e.kwargs), (t.args, t.kwargs)
        if not same_value(mine, its, twin):
            if not same_value(mine, its, twin, modes=True):
                return None
            changed.append((e, mine, its))
    for node, mine, its in changed:
        with evaluated.graph.inserting_before(node):
            path = evaluated.owner(node)[0]
            flag = evaluated.graph.get_attr(f"{path}.training" if path else "training")
        evaluated.stacks[flag] = evaluated.stacks[node]
        node.args, node.kwargs = _substitute(mine, its, flag)
    return evaluated


def _substitute(a: Any, b: Any, flag: fx.Node) -> Any:
    """`a` with `flag` wherever it is False and `b`, its twin, is True."""
    if isinstance(a, (tuple, list)):
        return type(a)(_substitute(x, y, flag) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return {k: _substitute(a[k], b[k], flag) for k in a}
    return flag if a is False and b is True else a
