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

    def next_one(node: fx.Node) -> fx.Node | None:
        user = only(node.users)
        return user if user in flow.data and flow.ops.elementwise(user) else None

    return chain(join, next_one)[-1]


def step_regions(flow: Flow, path: str, joins: list[Join]) -> list[Region]:
    """Disjoint steps that the first call of a module makes one after the other.

        x ──┬─ conv ─(+)─ relu ──┬─ conv ─(+)─ relu ── …
            └────────┘ step 0    └────────┘ step 1

    A step ends at a join that every path to the call's result passes, and starts at the last such
    point that both its operands come from. Or it adds what it made of a tensor to that one (the
    darknet of YOLOv3, whose later layers go back to earlier ones).
    """
    mine = {join.node: join for join in joins if join.frame[1] == 0}
    passed = set(_passed(flow, path))
    found: list[Region] = []
    last_end = -1
    for node, join in mine.items():
        start = flow.passed.get(node) if node in passed else _added_to(flow, join)
        if start is None or flow.position[start] < last_end:
            continue
        nodes = flow.members(flow.above[node] & ~flow.above[start])
        if not any(flow.ops.conv(n) for n in nodes):
            continue
        output = extend_output(flow, node)
        extra = flow.members(flow.above[output] & ~flow.above[node])
        found.append(Region(nodes=(*nodes, *extra), output=output, joins=(join,)))
        last_end = flow.position[output]
    return found


def _added_to(flow: Flow, join: Join) -> fx.Node | None:
    """What a join adds to what was made of it alone, which nobody else reads."""
    if not join.adds:
        return None
    start = min(join.operands, key=flow.position.__getitem__)
    nodes = set(flow.members(flow.above[join.node] & ~flow.above[start]))
    enter = {s for n in nodes for s in flow.sources[n]} - nodes
    inner = nodes - {join.node}
    leave = {u for n in inner for u in n.users if u in flow.data and flow.alive(u)} - nodes
    return start if enter == {start} and not leave else None


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
