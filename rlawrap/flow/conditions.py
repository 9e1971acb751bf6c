"""Conditions: tensors that only scale and shift an image (SPADE, FiLM, conditional norms)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import fx

from rlawrap.flow.dataflow import Flow
from rlawrap.walks import chain, only, search

#: A gate is made of a tensor in so many operations, on all ways together.
_NEAR = 32


def conditions(flow: Flow, nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Of the tensors that `nodes` read from outside, those that only scale and shift another.

        x ──── norm ────── (·) ── (+) ── conv ──
        seg ─ conv ─ relu ┬ conv ┘   │
                          └ conv ────┘

    A product has no order, so it does not say which of two is the scale: that is the one that
    shifts what it scales, too, or else the one that is convolved, or activated, for this alone.
    """
    inner, reads = _reading(flow, nodes)
    return _conditions(flow, inner, reads)


def shifting(flow: Flow, nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """The additions by which conditions shift an image: they join no branches."""
    inner, reads = _reading(flow, nodes)
    bits = sum(reads[s] for s in _conditions(flow, inner, reads))
    return {
        n
        for n in inner
        if bits
        and flow.ops.adds(n)
        and any(reads[s] and not reads[s] & ~bits for s in flow.sources[n])
    }


def becomes_gate(flow: Flow, node: fx.Node) -> bool:
    """Whether a tensor is squashed between 0 and 1 and then scales another, and does nothing else.

    g ── conv ─┐
    x ─┬ conv (+)── relu ── conv ── sigmoid ─┐
       └─────────────────────────────────── (·) ──      an attention gate of a UNet
    """
    squashed = _all_lead(flow, [node], flow.ops.squash)
    products = squashed and _all_lead(flow, squashed, lambda n: _scales(flow, n))
    return bool(products) and all(
        any(not flow.derives(side, node) for side in flow.sources[n]) for n in products or ()
    )


def _all_lead(
    flow: Flow, starts: Iterable[fx.Node], hit: Callable[[fx.Node], bool]
) -> list[fx.Node] | None:
    """The nearest hits on the ways onward; None if one of the ways has none near by."""
    hits: dict[fx.Node, None] = {}
    ends: list[fx.Node] = []

    def onward(node: fx.Node) -> list[fx.Node]:
        if hit(node):
            hits[node] = None
            return []
        users = [n for n in node.users if n in flow.data and flow.alive(n)]
        if not users or node in flow.outputs:
            ends.append(node)
        return users

    for count, _ in enumerate(search(starts, onward)):
        if ends or count > _NEAR:
            return None
    return list(hits)


def _reading(flow: Flow, nodes: Iterable[fx.Node]) -> tuple[list[fx.Node], dict[fx.Node, int]]:
    """The data among `nodes`, in order, and which tensors from outside each of them reads, as bits.

    Those from outside have a bit each.
    """
    inner = sorted((n for n in set(nodes) if n in flow.data), key=flow.position.__getitem__)
    inside = set(inner)
    outside = list(dict.fromkeys(s for n in inner for s in flow.sources[n] if s not in inside))
    reads = {s: 1 << i for i, s in enumerate(outside)}
    for node in inner:
        reads[node] = 0
        for source in flow.sources[node]:
            reads[node] |= reads[source]
    return inner, reads


def _conditions(flow: Flow, inner: list[fx.Node], reads: dict[fx.Node, int]) -> set[fx.Node]:
    inside = set(inner)
    outside = [s for s in reads if s not in inside]
    if len(outside) < 2 or not any(_scales(flow, n) for n in inner):
        return set()
    found = {s for s in outside if _only_scales(flow, inner, reads, s)}
    # A shift of its own, of what another tensor scales (scale and shift made by two modules).
    found |= {s for s in outside if _only_shifts(flow, inner, reads, s, found)}
    images = [s for s in outside if flow.is_image(s)]
    return found if any(s not in found for s in images) else set()


def _scales(flow: Flow, node: fx.Node) -> bool:
    return flow.ops.gate(node) and len(flow.sources[node]) == 2


def _meets(
    flow: Flow, inner: list[fx.Node], reads: dict[fx.Node, int], source: fx.Node
) -> list[tuple[fx.Node, fx.Node, fx.Node | None]]:
    """Where what derives from one tensor alone meets others: node, its side, the only other."""
    met = []
    for node in inner:
        for side in flow.sources[node]:
            if reads[side] == reads[source] != reads[node]:
                others = [s for s in flow.sources[node] if s is not side]
                met.append((node, side, only(others)))
    return met


def _only_scales(
    flow: Flow, inner: list[fx.Node], reads: dict[fx.Node, int], source: fx.Node
) -> bool:
    """Whether all that a tensor does is to scale others, and perhaps shift what it scales."""
    met = _meets(flow, inner, reads, source)
    products = [m for m in met if _scales(flow, m[0])]
    scaled = {node for node, _, _ in products}
    shifts = [m for m in met if _shifts(flow, m, scaled)]
    if not products or len(products) + len(shifts) < len(met):
        return False
    if shifts:
        return True
    inside = set(inner)
    return all(
        other is not None and _made(flow, side, inside) > _made(flow, other, inside)
        for _, side, other in products
    )


def _only_shifts(
    flow: Flow,
    inner: list[fx.Node],
    reads: dict[fx.Node, int],
    source: fx.Node,
    scales: set[fx.Node],
) -> bool:
    """Whether all that a tensor does is to shift what others scale."""
    bits = sum(reads[s] for s in scales)
    by_scales = {
        n for n in inner if _scales(flow, n) and any(reads[s] & ~bits == 0 for s in flow.sources[n])
    }
    met = _meets(flow, inner, reads, source)
    return bool(met) and all(_shifts(flow, m, by_scales) for m in met)


def _shifts(flow: Flow, met: tuple[fx.Node, fx.Node, fx.Node | None], scaled: set[fx.Node]) -> bool:
    """Whether an addition follows one of the products, with nothing but identities between."""
    node, _, other = met
    if not flow.ops.adds(node) or other is None:
        return False
    way = chain(other, lambda n: flow.sources[n][0] if flow.ops.identity(n) else None)
    return way[-1] in scaled


def _made(flow: Flow, side: fx.Node, inside: set[fx.Node]) -> tuple[bool, bool]:
    """Whether an operand of a product was convolved here, and whether an activation ends it."""
    nodes = [n for n in flow.members(flow.above[side]) if n in inside]
    way = chain(
        side, lambda n: None if flow.ops.activation(n) or n not in inside else only(flow.sources[n])
    )
    ends = any(flow.ops.activation(n) for n in way if n in inside)
    return any(flow.ops.conv(n) is not None for n in nodes), ends
