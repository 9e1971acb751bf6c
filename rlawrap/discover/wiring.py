"""Where the hidden state enters a block, and which of its tensors h is updated from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from rlawrap.discover.regions import Found
from rlawrap.flow.dataflow import Flow


@dataclass
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
    """Entries, branch y, shortcut s and output x of one block (rules 15, 17 and 19)."""
    inner = {n for n in found.nodes if n in flow.data}
    bits = flow.bits(inner)
    shortcuts: dict[fx.Node, fx.Node] = {}  # add -> its shortcut operand
    branch: fx.Node | None = None
    shortcut: fx.Node | None = None
    for join in found.joins:
        pair = flow.ops.add_operands(join)
        if pair is None:
            continue
        branch, shortcut = None, _shortcut_of(flow, pair, bits)
        if shortcut is not None:
            branch = pair[0] if shortcut is pair[1] else pair[1]
            shortcuts[join] = shortcut
    if found.joins and flow.ops.add_operands(found.joins[-1]) is None:
        branch, shortcut = None, None  # the last join concatenates: y is the block's output
    main = _main_path(flow, found.output, inner, shortcuts)
    entries = _entries(flow, found, inner, main)
    note = "" if entries else _why_not(flow, found)
    source = _input_of(flow, found, inner, entries)
    if len(entries) > 1:
        # Of several inputs h comes with the latest; what reads only earlier ones is no entry.
        near = [e for e in entries if _reads(flow, e, source, inner)]
        entries = near or entries
    return Wired(found, source, entries, branch, shortcut, found.output, note)


def _main_path(
    flow: Flow, output: fx.Node, inner: set[fx.Node], shortcuts: dict[fx.Node, fx.Node]
) -> set[fx.Node]:
    """Nodes of a block that its output derives from by another way than the shortcuts of adds."""
    main: set[fx.Node] = set()
    stack = [output]
    while stack:
        node = stack.pop()
        if node in main or node not in inner:
            continue
        main.add(node)
        stack += [s for s in flow.sources[node] if s is not shortcuts.get(node)]
    return main


def _reads(flow: Flow, entry: fx.Node, source: fx.Node, inner: set[fx.Node]) -> bool:
    """Whether an entry derives from an outside node by nodes of the block alone."""
    seen: set[fx.Node] = set()
    stack = list(flow.sources[entry])
    while stack:
        node = stack.pop()
        if node is source:
            return True
        if node in inner and node not in seen:
            seen.add(node)
            stack += flow.sources[node]
    return False


def _shortcut_of(flow: Flow, pair: tuple[fx.Node, fx.Node], bits: int) -> fx.Node | None:
    """The operand of an add that is the shortcut: no activation, or fewer convolutions."""
    a, b = pair
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


def _entries(flow: Flow, found: Found, inner: set[fx.Node], main: set[fx.Node]) -> list[fx.Node]:
    """The first convolutions of the block that its input reaches, the shortcut's left out."""
    reached: dict[fx.Node, bool] = {}  # conv -> whether only a part of the channels leads there
    seen: dict[fx.Node, bool] = {}
    starts = [n for n in found.nodes if n in inner and any(s not in inner for s in flow.sources[n])]
    stack = [(n, False) for n in starts]
    while stack:
        node, part = stack.pop()
        if flow.ops.conv(node) is not None:
            reached[node] = reached.get(node, True) and part
            continue
        part = (part or _takes_part(flow, node)) and not flow.ops.cat_operands(node)
        if node in seen and (seen[node] is False or part):
            continue
        seen[node] = part
        stack += [(user, part) for user in node.users if user in inner]
    hits = [n for n in reached if n in main and _is_entry(flow, n)]
    if not hits:
        return []
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


def _joinable(
    flow: Flow, entries: list[fx.Node], inner: set[fx.Node], main: set[fx.Node]
) -> list[fx.Node]:
    """Beside a depthwise convolution h joins at the next dense one; where another depthwise one
    comes first (a depthwise token mixer before the block's MLP), h enters there instead."""
    kept: list[fx.Node] = []
    for entry in entries:
        conv = flow.ops.conv(entry)
        while conv is not None and conv.depthwise:
            behind = [n for n in _next_convs(flow, entry, inner) if n in main]
            behind = [n for n in behind if flow.same_size(n, entry)]
            kinds = [flow.ops.conv(n) for n in behind]
            if any(c and not c.depthwise and not c.transposed for c in kinds) or not behind:
                break
            entry = min(behind, key=flow.position.__getitem__)
            conv = flow.ops.conv(entry)
        kept.append(entry)
    return list(dict.fromkeys(kept))


def _next_convs(flow: Flow, entry: fx.Node, inner: set[fx.Node]) -> list[fx.Node]:
    """The convolutions that read a convolution's output with no other between."""
    found: list[fx.Node] = []
    seen: set[fx.Node] = set()
    stack = list(entry.users)
    while stack:
        node = stack.pop()
        if node in seen or node not in inner:
            continue
        seen.add(node)
        if flow.ops.conv(node) is not None:
            found.append(node)
        else:
            stack += list(node.users)
    return found


def _first(flow: Flow, nodes: list[fx.Node]) -> list[fx.Node]:
    """Those that derive from no other."""
    return [n for n in nodes if not any(n is not o and flow.derives(n, o) for o in nodes)]


def _takes_part(flow: Flow, node: fx.Node) -> bool:
    """chunk, split or a slice of channels: fewer channels come out than went in."""
    if flow.ops.splits(node):
        return True
    if getattr(node.target, "__name__", "") != "getitem" or not flow.sources[node]:
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
    total = 1
    for n in flow.spatial(flow.sources[node][0]) or (0,):
        total *= n
    return total


def _why_not(flow: Flow, found: Found) -> str:
    if len(found.nodes) == 1 and flow.ops.conv(found.nodes[0]) is None:
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
    kept = []
    for group in groups.values():
        group.sort(key=lambda n: max(_kernel(flow, n)), reverse=True)
        kept.append(group[0])
    return sorted(kept, key=flow.position.__getitem__)


def _kernel(flow: Flow, node: fx.Node) -> tuple[int, ...]:
    conv = flow.ops.conv(node)
    return conv.window.kernel if conv is not None and conv.window is not None else (1,)


def _linear_end(flow: Flow, entry: fx.Node, inner: set[fx.Node]) -> fx.Node:
    """Follow norms and adds behind a convolution; the last add, or the convolution itself."""
    node, end = entry, entry
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user not in inner:
            break
        if flow.ops.adds(user):
            end = user
        elif not flow.ops.norm(user) or flow.ops.activation(user):
            break
        node = user
    return end


def _input_of(flow: Flow, found: Found, inner: set[fx.Node], entries: list[fx.Node]) -> fx.Node:
    """The latest outside tensor that an entry reads; else the latest image from outside.

    Where only a tuple or a sequence comes from outside, the latest image that the block's own
    forward makes of it.
    """
    outside = [s for n in found.nodes if n in inner for s in flow.sources[n] if s not in inner]
    outside = list(dict.fromkeys(outside)) or flow.sources[found.nodes[0]]
    if not entries:
        images = [s for s in outside if flow.channel_axis(s) is not None]
        near = [s for s in images if flow.is_image(s)] or images or [found.output]
        return max(near, key=flow.position.__getitem__)
    read = [s for s in outside if any(_reads(flow, e, s, inner) for e in entries)]
    images = [s for s in read if flow.is_image(s)]
    if not images:
        made = [n for n in inner if flow.is_image(n) and any(s in read for s in flow.sources[n])]
        images = [n for n in made if any(_reads(flow, e, n, inner) for e in entries)]
    return max(images or flow.sources[entries[0]], key=flow.position.__getitem__)
