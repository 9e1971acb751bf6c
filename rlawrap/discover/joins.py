"""Joins: where a network adds two images of one shape, or concatenates several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from rlawrap.capture.trace import Frame
from rlawrap.flow.conditions import shifting
from rlawrap.flow.dataflow import Flow


@dataclass(frozen=True, eq=False)
class Join:
    """One addition or concatenation of images on the way to the output."""

    node: fx.Node
    operands: tuple[fx.Node, ...]
    #: Path of the module whose forward made it.
    owner: str
    adds: bool
    #: Whether it adds branches without an activation, which fold into one convolution.
    folds: bool


def find_joins(flow: Flow, ran: Mapping[Frame, list[fx.Node]]) -> list[Join]:
    """All joins on the way to the output, in order; `ran` holds the nodes of each module call."""
    joins = []
    bits: dict[Frame, int] = {}
    shifts: dict[Frame, set[fx.Node]] = {}
    for node in flow.nodes:
        operands = _operands(flow, node) if node in flow.data and flow.alive(node) else None
        if operands is None:
            continue
        frame = flow.trace.owner(node)
        adds = flow.ops.add_operands(node) is not None
        if adds and frame not in bits:
            bits[frame] = flow.bits(n for n in ran.get(frame, ()) if n in flow.data)
            shifts[frame] = shifting(flow, ran.get(frame, ())) if frame[0] else set()
        if adds and node in shifts[frame]:
            continue
        folds = adds and _folds(flow, node, bits[frame])
        joins.append(Join(node, tuple(operands), frame[0], adds, folds))
    return joins


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


def _folds(flow: Flow, add: fx.Node, mine: int) -> bool:
    """Whether all between its owner's input and an addition is linear, and convolves (rule 3)."""
    before = flow.members(flow.above[add] & mine & ~(1 << flow.position[add]))
    convolves = any(flow.ops.conv(n) is not None for n in before)
    return convolves and all(flow.linear(n) for n in before)
