"""The spine of a block: the way from its output back to its input by the shortcuts of its joins."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from rlawrap.discover.joins import Join, folds
from rlawrap.flow.dataflow import Flow


def residual_joins(
    flow: Flow, inner: set[fx.Node], output: fx.Node, joins: Iterable[Join]
) -> tuple[Join, ...]:
    """Of `joins` in a block those that make it residual, in order, whoever made them.

        x ──┬─ conv … conv ─(+)──┬─ conv … conv ─(+)── norm ── output
            └─ conv 1x1 ────┘    └───────────────┘

    Walking back from the output, on the shortcut's side of every addition, no activation and at
    most one convolution lies between two of them and before the first; else there are none. Nor are
    there where all branches are linear: then the block is one convolution.
    """
    bits = flow.bits(inner)
    by_node = {
        join.node: join
        for join in joins
        if join.node in inner and not (join.adds and folds(flow, join.node, bits))
    }
    found: list[Join] = []
    convolved = False
    node: fx.Node | None = output
    while node in inner:
        join = by_node.get(node)
        if join is not None:
            if not join.adds:
                return ()
            a, b = join.operands
            node = shortcut_of(flow, a, b, bits)
            found, convolved = [*found, join], False
            continue
        convolves = flow.ops.conv(node) is not None
        acts = flow.ops.activation(node) and bool(found)
        if len(flow.sources[node]) != 1 or acts or (convolves and (convolved or not found)):
            return ()
        convolved |= convolves
        node = flow.sources[node][0]
    return tuple(reversed(found)) if node is not None else ()  # None: two branches, no shortcut


def shortcut_of(flow: Flow, a: fx.Node, b: fx.Node, bits: int) -> fx.Node | None:
    """The operand of an add that is the shortcut: no activation, or fewer convolutions."""
    only_a = flow.members(flow.above[a] & bits & ~flow.above[b])
    only_b = flow.members(flow.above[b] & bits & ~flow.above[a])

    def acts(nodes: list[fx.Node]) -> bool:
        return any(flow.ops.activation(n) or flow.ops.gate(n) for n in nodes)

    def convs(nodes: list[fx.Node]) -> int:
        return sum(flow.ops.conv(n) is not None for n in nodes)

    if acts(only_a) != acts(only_b):
        return b if acts(only_a) else a
    if convs(only_b) <= 1 and convs(only_b) < convs(only_a):
        return b
    if convs(only_a) <= 1 and convs(only_a) < convs(only_b):
        return a
    if not only_a and only_b:
        return a
    if not only_b and only_a:
        return b
    return None
