"""Joins: where a network adds two images of one shape, or concatenates several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from rlawrap.capture.trace import Frame
from rlawrap.flow.conditions import becomes_gate, shifting
from rlawrap.flow.dataflow import Flow
from rlawrap.walks import search


@dataclass(frozen=True, eq=False)
class Join:
    """One addition or concatenation of images on the way to the output."""

    node: fx.Node
    operands: tuple[fx.Node, ...]
    #: The module call that made it; that around one that only joins what it is given (`Add()`).
    frame: Frame
    adds: bool
    #: Whether it adds branches without an activation, which fold into one convolution.
    folds: bool

    @property
    def owner(self) -> str:
        """Path of the module whose forward made it."""
        return self.frame[0]


def find_joins(flow: Flow, ran: Mapping[Frame, list[fx.Node]]) -> list[Join]:
    """All joins on the way to the output, in order; `ran` holds the nodes of each module call."""
    joins = []
    bits: dict[Frame, int] = {}
    shifts: dict[Frame, set[fx.Node]] = {}
    for node in flow.nodes:
        operands = _operands(flow, node) if node in flow.data and flow.alive(node) else None
        if operands is None:
            continue
        frame = _maker(flow, ran, node, operands)
        adds = flow.ops.add_operands(node) is not None
        if adds and frame not in bits:
            bits[frame] = flow.bits(n for n in ran.get(frame, ()) if n in flow.data)
            shifts[frame] = shifting(flow, ran.get(frame, ())) if frame[0] else set()
        if (adds and node in shifts[frame]) or becomes_gate(flow, node):
            continue
        linear = adds and folds(flow, node, bits[frame])
        joins.append(Join(node, tuple(operands), frame, adds, linear))
    return joins


def _maker(
    flow: Flow, ran: Mapping[Frame, list[fx.Node]], node: fx.Node, operands: list[fx.Node]
) -> Frame:
    """The innermost module call around a join that is no helper for the one around it.

    def forward(self, x): return self.add(self.conv(x), x)      # the block's, not add's
    """
    for frame in reversed(flow.trace.stacks.get(node, ())):
        inner = {n for n in ran[frame] if n in flow.data}
        if any(flow.ops.conv(n) is not None for n in inner) or not _apart(flow, operands, inner):
            return frame
    return ("", 0)


def _apart(flow: Flow, operands: list[fx.Node], inner: set[fx.Node]) -> bool:
    """Whether each operand comes of another tensor that was given to these nodes from outside."""
    seen: set[fx.Node] = set()
    for operand in operands:
        reached = search([operand], lambda n: flow.sources[n] if n in inner else ())
        given = {n for n in reached if n not in inner}
        if not given or given & seen:
            return False
        seen |= given
    return True


def _operands(flow: Flow, node: fx.Node) -> list[fx.Node] | None:
    """Operands of an add of two equal images from different paths, or of a concatenation."""
    pair = flow.ops.add_operands(node)
    if pair is not None:
        added = all(n in flow.data for n in pair) and flow.is_image(node)
        return list(pair) if added and _equal_where_added(flow, node, *pair) else None
    items = flow.ops.cat_operands(node) or ()
    images = [n for n in dict.fromkeys(items) if n in flow.data and flow.is_image(n)]
    return images if len(images) >= 2 else None


def _equal_where_added(flow: Flow, add: fx.Node, a: fx.Node, b: fx.Node) -> bool:
    """Whether two operands have one shape at each probe size that the addition takes."""
    rows = (flow.shapes.rows(n) for n in (add, a, b))
    return all(x == y for out, x, y in zip(*rows, strict=True) if out is not None)


def folds(flow: Flow, add: fx.Node, mine: int) -> bool:
    """Whether all of the nodes `mine` before an addition is linear, and convolves (rule 3)."""
    before = flow.members(flow.above[add] & mine & ~(1 << flow.position[add]))
    convolves = any(flow.ops.conv(n) is not None for n in before)
    return convolves and all(flow.linear(n) for n in before)
