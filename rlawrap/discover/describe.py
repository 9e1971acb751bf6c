"""Nodes into references: a block as the plan describes it, and the heads."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from torch import fx

from rlawrap.discover.wiring import Wired
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References
from rlawrap.plan import Block
from rlawrap.walks import first_hits


def describe(flow: Flow, refs: References, wired: Wired, parent: int | None) -> Block:
    """One block of the plan; `parent` is the index of the one whose h it reads."""
    found = wired.found
    output = refs.name(wired.output)
    path = found.path
    if found.frame is not None:
        text = refs.call(found.frame)
        output = text if refs.find(text) is wired.output else output
        path = output if found.frame[1] else path
    return Block(
        path=path,
        class_name=found.class_name,
        input=refs.name(wired.input),
        entries=tuple(refs.name(n) for n in wired.entries),
        branch=None if wired.branch is None else refs.name(wired.branch),
        shortcut=None if wired.shortcut is None else refs.name(wired.shortcut),
        output=output,
        after=parent,
        in_channels=flow.channels(wired.input),
        channels=flow.channels(wired.output),
        stride=_stride(flow.spatial(wired.input), flow.spatial(wired.output)),
        size=flow.spatial(wired.output),
        note=wired.note,
    )


def _stride(before: tuple[int, ...] | None, after: tuple[int, ...] | None) -> float | None:
    """How many times smaller each side of the image becomes, on average."""
    if not before or not after or min(after) < 1:
        return None
    return round(round(math.prod(before) / math.prod(after), 3) ** (1 / len(after)), 2)


def find_heads(
    flow: Flow, wired: list[Wired], passed: Collection[fx.Node] = frozenset()
) -> list[fx.Node]:
    """The first convolutions or linear layers behind the last block on the way to each output.

    passed: layers that are none where another lies behind them: what eval mode alone computes.
    """
    inner = {n for w in wired for n in w.found.nodes}
    heads: dict[fx.Node, None] = {}
    for output in flow.outputs:
        before = [w.output for w in wired if flow.derives(output, w.output)]
        if before:
            heads |= dict.fromkeys(_heads_of(flow, before[-1], output, inner, passed))
    return sorted(heads, key=flow.position.__getitem__)


def _heads_of(
    flow: Flow, last: fx.Node, output: fx.Node, inner: set[fx.Node], passed: Collection[fx.Node]
) -> Iterator[fx.Node]:
    """The layers of an output, which derives from the block that returns `last`, and no later."""

    def onward(node: fx.Node) -> list[fx.Node]:
        return [user for user in node.users if user in flow.data and flow.derives(output, user)]

    def first(passed: Collection[fx.Node]) -> list[fx.Node]:
        def hit(node: fx.Node) -> bool:
            return flow.ops.conv(node) is not None and node not in passed

        return first_hits(onward(last), onward, hit)

    found = first(passed) or first(())
    kinds = [(n, flow.ops.conv(n)) for n in found if n not in inner]
    joined = [n for n, conv in kinds if conv is not None and not conv.transposed]
    for n in joined:
        if not any(n is not o and flow.derives(n, o) for o in joined):
            yield n
