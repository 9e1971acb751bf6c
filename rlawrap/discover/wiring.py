"""Wiring: where h enters a block, and which of its tensors are y, the shortcut and x."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import fx

from rlawrap.capture.trace import name_of
from rlawrap.discover.found import Found
from rlawrap.discover.spine import shortcut_of
from rlawrap.flow.conditions import conditions
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.windows import Conv
from rlawrap.walks import chain, first_hits, only, search


@dataclass(frozen=True, eq=False)
class Wired:
    """A found block with the nodes that matter to the rewrite."""

    found: Found
    input: fx.Node
    entries: list[fx.Node]
    branch: fx.Node | None
    shortcut: fx.Node | None
    output: fx.Node
    note: str = ""


def wire(flow: Flow, found: Found) -> Wired:
    """Entries, branch y, shortcut s and output x of one block."""
    inner = {n for n in found.nodes if n in flow.data}
    bits = flow.bits(inner)
    shortcuts: dict[fx.Node, fx.Node] = {}  # the node that reads a shortcut for an add -> it
    branch: fx.Node | None = None
    shortcut: fx.Node | None = None
    for join in found.joins:
        branch = shortcut = None  # where the last join concatenates, y is the block's output
        if join.adds:
            a, b = join.operands
            shortcut = shortcut_of(flow, a, b, bits)
            if shortcut is not None:
                branch = a if shortcut is b else b
                direct = shortcut in flow.sources[join.node]  # not by a stack that is summed
                shortcuts[join.node if direct else flow.sources[join.node][0]] = shortcut
    # Nodes that the output derives from by another way than the shortcuts of additions.
    main = set(
        search(
            [found.output] if found.output in inner else [],
            lambda node: (
                s for s in flow.sources[node] if s in inner and s is not shortcuts.get(node)
            ),
        )
    )
    beside = _of_conditions(flow, inner)
    entries = _entries(flow, found, inner, main, beside)
    note = "" if entries else _why_not(found)
    source = _input_of(flow, found, inner, entries, beside)
    if len(entries) > 1:
        # Of several inputs h comes with the latest; what reads only earlier ones is no entry.
        entries = [e for e in entries if source in _read_by(flow, [e], inner)] or entries
    return Wired(found, source, entries, branch, shortcut, found.output, note)


def _of_conditions(flow: Flow, inner: set[fx.Node]) -> set[fx.Node]:
    """What only scales and shifts the image, from outside on: no way for h."""
    beside = conditions(flow, inner)
    for node in sorted(inner, key=flow.position.__getitem__) if beside else ():
        if flow.sources[node] and all(s in beside for s in flow.sources[node]):
            beside.add(node)
    return beside


def _read_by(flow: Flow, entries: Iterable[fx.Node], inner: set[fx.Node]) -> set[fx.Node]:
    """What entries derive from by nodes of the block alone, the first ones outside included."""
    sources = [s for e in entries for s in flow.sources[e]]
    return set(search(sources, lambda n: flow.sources[n] if n in inner else ()))


def _entries(
    flow: Flow, found: Found, inner: set[fx.Node], main: set[fx.Node], beside: set[fx.Node]
) -> list[fx.Node]:
    """The first convolutions of the block that its input reaches, the shortcut's left out.

    Where a transposed convolution comes first, which h cannot enter, those behind it.
    """
    reached = _reached(flow, found, inner, beside, lambda conv: True)
    hits = [n for n in reached if n in main and _is_entry(flow, n)]
    if not hits:
        reached = _reached(flow, found, inner, beside, lambda conv: not conv.transposed)
        hits = [n for n in reached if n in main and _is_entry(flow, n)]
    if not hits:
        return []
    # Of several inputs h comes with the latest. That is asked first: behind a reduction the cells
    # of DARTS get an earlier input, too, whose larger image would outdo the latest one's.
    latest = _input_of(flow, found, inner, hits, beside)
    hits = [n for n in hits if latest in _read_by(flow, [n], inner)] or hits
    largest = max(_area(flow, n) for n in hits)
    hits = [n for n in hits if _area(flow, n) == largest]
    first = _first(flow, hits)
    parts = [n for n in first if reached[n]]
    # Behind a channel split the pieces rejoin before a convolution of all channels: that one.
    rejoined = [n for n in hits if not reached[n] and any(flow.derives(n, p) for p in parts)]
    if rejoined:
        first = _first(flow, [*(n for n in first if not reached[n]), *rejoined])
    first = _joinable(flow, first, inner, main)
    return _one_per_linear_join(flow, sorted(first, key=flow.position.__getitem__), inner)


def _reached(
    flow: Flow,
    found: Found,
    inner: set[fx.Node],
    beside: set[fx.Node],
    counts: Callable[[Conv], bool],
) -> dict[fx.Node, bool]:
    """The first convolutions behind a block's input, and whether only a part of it leads there.

    `counts` says which convolutions are looked for; the walk goes on through others.

    A part is one of the channels; a concatenation puts the parts together again.
    """

    def onward(state: tuple[fx.Node, bool]) -> Iterable[tuple[fx.Node, bool]]:
        node, part = state
        part = (part or _takes_part(flow, node)) and not flow.ops.cat_operands(node)
        return ((user, part) for user in node.users if user in inner)

    apart = inner | beside
    starts = [n for n in found.nodes if n in inner and any(s not in apart for s in flow.sources[n])]

    def hit(state: tuple[fx.Node, bool]) -> bool:
        conv = flow.ops.conv(state[0])
        return conv is not None and counts(conv)

    hits = first_hits([(n, False) for n in starts], onward, hit)
    reached: dict[fx.Node, bool] = {}
    for node, part in hits:
        reached[node] = reached.get(node, True) and part
    return reached


def _joinable(
    flow: Flow, entries: list[fx.Node], inner: set[fx.Node], main: set[fx.Node]
) -> list[fx.Node]:
    """Beside a depthwise convolution h joins at the next dense one; where another depthwise one
    comes first (a depthwise token mixer before the block's MLP), h enters there instead."""

    def instead(entry: fx.Node) -> fx.Node | None:
        conv = flow.ops.conv(entry)
        if conv is None or not conv.depthwise:
            return None
        behind = first_hits(
            [user for user in entry.users if user in inner],
            lambda n: (user for user in n.users if user in inner),
            lambda n: flow.ops.conv(n) is not None,
        )
        behind = [n for n in behind if n in main and flow.same_size(n, entry)]
        kinds = [flow.ops.conv(n) for n in behind]
        if any(c and not c.depthwise and not c.transposed for c in kinds):
            return None
        return min(behind, key=flow.position.__getitem__, default=None)

    return list(dict.fromkeys(chain(entry, instead)[-1] for entry in entries))


def _first(flow: Flow, nodes: list[fx.Node]) -> list[fx.Node]:
    """Those that derive from no other."""
    return [n for n in nodes if not any(n is not o and flow.derives(n, o) for o in nodes)]


def _takes_part(flow: Flow, node: fx.Node) -> bool:
    """chunk, split or a slice of channels: fewer channels come out than went in."""
    if flow.ops.splits(node):
        return True
    if name_of(node) != "getitem" or not flow.sources[node]:
        return False
    before, after = flow.channels(flow.sources[node][0]), flow.channels(node)
    return before is not None and after is not None and after < before


def _is_entry(flow: Flow, node: fx.Node) -> bool:
    """A convolution of images, or a linear layer on channels-last images."""
    conv = flow.ops.conv(node)
    if conv is None or conv.transposed or not flow.is_image(node):
        return False
    source = flow.sources[node][0]
    if conv.window is None:
        return flow.channel_axis(source) == flow.rank - 1 and flow.rank > 2
    return flow.channel_axis(source) == 1 and len(conv.window.kernel) == flow.rank - 2


def _area(flow: Flow, node: fx.Node) -> int:
    """Pixels that an entry reads."""
    return math.prod(flow.spatial(flow.sources[node][0]) or (0,))


def _why_not(found: Found) -> str:
    if found.whole:
        return "a leaf module: h reads its output and cannot enter it"
    return "no convolution that reads the block's input: h reads its output only"


def _one_per_linear_join(flow: Flow, entries: list[fx.Node], inner: set[fx.Node]) -> list[fx.Node]:
    """Of parallel convolutions that are added up with nothing but norms between, the largest.

    Conv is linear: what h adds to one of them it adds to their sum.
    """
    if len(entries) < 2:
        return entries
    groups: dict[fx.Node, list[fx.Node]] = {}
    for entry in entries:
        groups.setdefault(_linear_end(flow, entry, inner), []).append(entry)
    kept = [max(group, key=lambda n: max(_kernel(flow, n))) for group in groups.values()]
    return sorted(kept, key=flow.position.__getitem__)


def _kernel(flow: Flow, node: fx.Node) -> tuple[int, ...]:
    conv = flow.ops.conv(node)
    return conv.window.kernel if conv is not None and conv.window is not None else (1,)


def _linear_end(flow: Flow, entry: fx.Node, inner: set[fx.Node]) -> fx.Node:
    """Follow norms and adds behind a convolution; the last add, or the convolution itself."""

    def next_one(node: fx.Node) -> fx.Node | None:
        user = only(node.users)
        if user is None or user not in inner:
            return None
        norm = flow.ops.norm(user) and not flow.ops.activation(user)
        return user if norm or flow.ops.adds(user) or flow.ops.summed(user) else None

    adds = [node for node in chain(entry, next_one) if flow.ops.adds(node)]
    return adds[-1] if adds else entry


def _input_of(
    flow: Flow,
    found: Found,
    inner: set[fx.Node],
    entries: list[fx.Node],
    beside: set[fx.Node],
) -> fx.Node:
    """The latest outside tensor that an entry reads; else the latest image from outside.

    Where only a tuple or a sequence comes from outside, the latest image that the block's own
    forward makes of it.
    """
    outside = [s for n in found.nodes if n in inner for s in flow.sources[n] if s not in inner]
    outside = [s for s in dict.fromkeys(outside) if s not in beside]
    outside = outside or flow.sources[found.nodes[0]]
    if not entries:
        images = [s for s in outside if flow.channel_axis(s) is not None]
        near = [s for s in images if flow.is_image(s)] or images or [found.output]
        return max(near, key=flow.position.__getitem__)
    seen = _read_by(flow, entries, inner)
    read = [s for s in outside if s in seen]
    images = [s for s in read if flow.is_image(s)]
    if not images:
        made = [n for n in inner if flow.is_image(n) and any(s in read for s in flow.sources[n])]
        images = [n for n in made if n in seen]
    return max(images or flow.sources[entries[0]], key=flow.position.__getitem__)
