"""Nodes into references: a block as the plan describes it, and the head."""

from __future__ import annotations

import math

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


def find_head(flow: Flow, wired: list[Wired]) -> list[fx.Node]:
    """The first convolutions or linear layers behind the last block on the way out."""
    last = wired[-1].output
    if not flow.derives(flow.main_output, last):
        return []
    inner = {n for w in wired for n in w.found.nodes}

    def onward(node: fx.Node) -> list[fx.Node]:
        return [user for user in node.users if user in flow.data and flow.alive(user)]

    found = first_hits(onward(last), onward, lambda n: flow.ops.conv(n) is not None)
    kinds = [(n, flow.ops.conv(n)) for n in found if n not in inner]
    joined = [n for n, conv in kinds if conv is not None and not conv.transposed]
    first = [n for n in joined if not any(n is not o and flow.derives(n, o) for o in joined)]
    return sorted(first, key=flow.position.__getitem__)
