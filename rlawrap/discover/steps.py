"""Steps: blocks written in the forward of a stage or network, without a module of their own."""

from __future__ import annotations

from torch import fx

from rlawrap.discover.candidates import Region
from rlawrap.discover.joins import Join
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import tensors_of
from rlawrap.walks import chain, only


def extend_output(flow: Flow, join: fx.Node) -> fx.Node:
    """`x = relu(x + y)`: a block ends behind the activation that alone reads the join."""
    return extended(flow, join)[-1]


def extended(flow: Flow, join: fx.Node) -> list[fx.Node]:
    """A node, and the activations behind it, each of which alone reads what is before it."""

    def next_one(node: fx.Node) -> fx.Node | None:
        user = only(node.users)
        return user if user in flow.data and flow.ops.elementwise(user) else None

    return chain(join, next_one)


def step_regions(flow: Flow, path: str, joins: list[Join]) -> list[Region]:
    """Disjoint steps that the first call of a module makes one after the other.

        x ──┬─ conv ─(+)─ relu ──┬─ conv ─(+)─ relu ── …
            └────────┘ step 0    └────────┘ step 1

    A step ends at a join that every path to the call's result passes, and starts at the last such
    point that both its operands come from.
    """
    mine = {join.node: join for join in joins if flow.trace.owner(join.node)[1] == 0}
    found: list[Region] = []
    last_end = -1
    for node in _passed(flow, path):
        join, start = mine.get(node), flow.passed[node]
        if join is None or start is None or flow.position[start] < last_end:
            continue
        nodes = flow.members(flow.above[node] & ~flow.above[start])
        if not any(flow.ops.conv(n) for n in nodes):
            continue
        output = extend_output(flow, node)
        extra = flow.members(flow.above[output] & ~flow.above[node])
        found.append(Region(nodes=(*nodes, *extra), output=output, joins=(join,)))
        last_end = flow.position[output]
    return found


def _passed(flow: Flow, path: str) -> list[fx.Node]:
    """Nodes that every path to the result of a module's first call passes, in order."""
    if not path:
        return flow.trunk
    frame = (path, 0)
    results = [n for n in tensors_of(flow.trace.calls[frame].output) if n in flow.passed]
    if not results:
        return []
    last = max(results, key=flow.position.__getitem__)
    way = chain(last, flow.passed.get)
    inside = [frame in flow.trace.stacks.get(n, ()) for n in way]
    return way[: inside.index(False) if False in inside else None][::-1]
