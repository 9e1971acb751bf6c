"""How the main path changes the image size from one node to another, as steps h can follow.

A window with 2 padding = dilation (kernel - 1) and stride s gives ceil(n / s) pixels for every n,
and so does an average pool of kernel s, stride s with `ceil_mode`: the paper's 2x2 on even sizes,
right on odd ones. Any other window is copied, its dilated kernel filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from rlawrap.capture.trace import name_of
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.vocabulary import PAD_MODES
from rlawrap.flow.windows import Window
from rlawrap.walks import shortest

Size = tuple[int, ...]


@dataclass(frozen=True)
class Pool:
    """Average pooling of h; padding is not counted in the average."""

    window: Window

    def size(self, spatial: Size) -> Size:
        return self.window.size(spatial)


@dataclass(frozen=True)
class Pad:
    """Padding around h: (before, after) for each spatial axis, and the mode of `F.pad`.

    A constant is zero for h, whatever it is for x.
    """

    sides: tuple[tuple[int, int], ...]
    mode: str = "constant"

    def size(self, spatial: Size) -> Size:
        return tuple(n + a + b for n, (a, b) in zip(spatial, self.sides, strict=True))


@dataclass(frozen=True)
class Crop:
    """A slice of h: (start, stop) for each spatial axis."""

    slices: tuple[tuple[int | None, int | None], ...]

    def size(self, spatial: Size) -> Size:
        return tuple(
            len(range(*slice(*part).indices(n)))
            for n, part in zip(spatial, self.slices, strict=True)
        )


@dataclass(frozen=True)
class Resize:
    """Nearest-neighbour resizing to the size of a tensor: where no pooling gives that size.

    `axes` are the spatial ones of that tensor.
    """

    axes: tuple[int, ...]

    def size(self, spatial: Size) -> Size:  # pragma: no cover - its size is its goal's
        raise AssertionError("a resize takes its size from its goal")


Step = Pool | Pad | Crop | Resize


def pools_for(window: Window) -> list[Step]:
    """The steps that change h's size exactly as a window changes x's."""
    dims = range(len(window.kernel))
    ones, zeros = (1,) * len(dims), (0,) * len(dims)
    whole = [
        not window.ceil_mode
        and 2 * window.padding[i] == window.dilation[i] * (window.kernel[i] - 1)
        for i in dims
    ]
    steps: list[Step] = []
    strides = tuple(window.stride[i] if whole[i] else 1 for i in dims)
    if any(s > 1 for s in strides):
        steps.append(Pool(Window(strides, strides, zeros, ones, ceil_mode=True)))
    if not all(whole):
        spans = tuple(
            1 if whole[i] else window.dilation[i] * (window.kernel[i] - 1) + 1 for i in dims
        )
        padding = tuple(0 if whole[i] else window.padding[i] for i in dims)
        if any(p > k // 2 for p, k in zip(padding, spans, strict=True)):
            steps.append(Pad(tuple((p, p) for p in padding)))
            padding = zeros
        stride = tuple(1 if whole[i] else window.stride[i] for i in dims)
        steps.append(Pool(Window(spans, stride, padding, ones, window.ceil_mode)))
    return steps


def route(flow: Flow, source: fx.Node, goal: fx.Node) -> list[Step] | None:
    """Steps from the size of `source` to the size of `goal`, exact at every probe; None if none.

    First the windows on the shortest data path between them, then a pool whose stride explains
    the sizes at every probe. Deep down these may all be even, and another probe tells of two such
    pools which one it is, or that a goal of one size (an adaptive pool's) has no stride at all.
    """
    if flow.same_size(source, goal):
        return []
    here, there = flow.resolution(source), flow.resolution(goal)
    path = _shortest(flow, source, goal)
    if path is not None:
        steps = _along(flow, source, path)
        if steps is not None and _fits(steps, here, there):
            return steps
    guesses = [g for g in _by_stride(here, there) if _fits(g, here, there)]
    if len(guesses) > 1 or len({size for size in there if size is not None}) == 1:
        here, there = flow.deep_sizes(source), flow.deep_sizes(goal)
        guesses = [g for g in guesses if _fits(g, here, there)]
    return guesses[0] if guesses else None


def _fits(steps: Sequence[Step], here: Sequence[Size | None], there: Sequence[Size | None]) -> bool:
    """Whether the steps lead from the sizes `here` to the sizes `there` at every probe."""
    for before, after in zip(here, there, strict=True):
        if before is None or after is None:
            continue
        size: Size = before
        for step in steps:
            size = step.size(size)
        if size != after or min(size) < 1:
            return False
    return True


def _shortest(flow: Flow, source: fx.Node, goal: fx.Node) -> list[fx.Node] | None:
    """Nodes behind `source` up to `goal` on the shortest data path, in order."""
    if not flow.derives(goal, source):
        return None
    back = shortest(
        goal, source, lambda node: (n for n in flow.sources[node] if flow.derives(n, source))
    )
    return None if back is None else back[-2::-1]


def _along(flow: Flow, source: fx.Node, path: list[fx.Node]) -> list[Step] | None:
    """What the nodes of a path do to sizes, each to what stands before it on the path."""
    steps: list[Step] = []
    for before, node in zip([source, *path], path, strict=False):
        if flow.channel_axis(node) is None or flow.channel_axis(before) is None:
            return None
        if keeps_size(flow, node, before):
            continue
        made = steps_of(flow, node)
        if made is None:
            return None
        steps += made
    return steps


def keeps_size(flow: Flow, node: fx.Node, before: fx.Node) -> bool:
    """Whether a node returns images of the size that it gets, also where it computes amounts."""
    if not flow.same_size(before, node):
        return False
    return not _computes(flow, node) or flow.deep_sizes(before) == flow.deep_sizes(node)


def _computes(flow: Flow, node: fx.Node) -> bool:
    """Whether a node pads or slices by amounts that the network computes."""
    call, index = pad_call(flow, node), index_of(node, flow.rank)
    amounts = list(call[0]) if call is not None else []
    amounts += [bound for part in index or () for bound in (part.start, part.stop)]
    return any(isinstance(amount, fx.Node) for amount in amounts)


def steps_of(flow: Flow, node: fx.Node) -> list[Step] | None:
    """What one node does to the size of an image, of settings that are known; None if unknown."""
    window = flow.ops.window(node)
    if window is not None:
        return pools_for(window) if len(window.kernel) == flow.rank - 2 else None
    crop = crop_of(flow, node)
    if crop is not None:
        return [crop] if any(part != (None, None) for part in crop.slices) else []
    pad = padding_of(flow, node)
    return None if pad is None else [pad]


def step_fits(flow: Flow, steps: Sequence[Step], source: fx.Node, goal: fx.Node) -> bool:
    """Whether the steps lead from the size of `source` to that of `goal` at every probe."""
    return _fits(steps, flow.resolution(source), flow.resolution(goal))


def resize_to(flow: Flow, goal: fx.Node) -> Resize | None:
    """Resizing to an image of the main path; None for what is no image."""
    axis = flow.channel_axis(goal)
    if axis is None:
        return None
    return Resize(tuple(i for i in range(1, flow.rank) if i != axis))


def pad_call(flow: Flow, node: fx.Node) -> tuple[Any, str] | None:
    """The amounts and the mode of a padding, as `F.pad` takes them; amounts may be nodes."""
    module = flow.trace.leaf(node)
    if module is not None:
        modes = [mode for classes, mode in PAD_MODES if isinstance(module, classes)]
        return (module.padding, modes[0]) if modes else None
    if node.op != "call_function" or name_of(node) != "pad":
        return None
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    flat = pad_amounts(node)
    return (flat, mode) if isinstance(flat, (tuple, list)) and isinstance(mode, str) else None


def pad_amounts(node: fx.Node) -> Any:
    """What a call of `F.pad` is told to add."""
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")


def padding_of(flow: Flow, node: fx.Node) -> Pad | None:
    """The padding of spatial axes by known amounts that a node makes, or None."""
    call = pad_call(flow, node)
    if call is None:
        return None
    flat = [flow.shapes.number(n) if isinstance(n, fx.Node) else n for n in call[0]]
    axis = flow.channel_axis(node)
    if axis is None or not all(isinstance(n, int) for n in flat):
        return None
    if len(flat) % 2 or len(flat) > 2 * flow.rank:
        return None
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    pairs += [(0, 0)] * (flow.rank - len(pairs))
    sides = pairs[::-1]  # the last axis comes first
    if sides[0] != (0, 0):
        return None
    return Pad(tuple(sides[i] for i in range(1, flow.rank) if i != axis), call[1])


def index_of(node: fx.Node, rank: int) -> list[slice] | None:
    """The slices of all axes that a `getitem` takes, or None; their bounds may be nodes.

    None for every second pixel, too: what is left of an image then is h's average, as of a stride.
    """
    if node.op != "call_function" or name_of(node) != "getitem":
        return None
    index: Any = node.args[1]
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(p is Ellipsis or (isinstance(p, slice) and p.step in (None, 1)) for p in parts):
        return None
    everything = [slice(None)] * (rank - len([p for p in parts if p is not Ellipsis]))
    at = [i for i, part in enumerate(parts) if part is Ellipsis] or [len(parts)]
    return [*parts[: at[0]], *everything, *parts[at[0] + 1 :]] if len(at) == 1 else None


def crop_of(flow: Flow, node: fx.Node) -> Crop | None:
    """The slice of spatial axes with known bounds that a node takes, or None."""
    index, axis = index_of(node, flow.rank), flow.channel_axis(node)
    if index is None or axis is None or len(index) != flow.rank or index[0] != slice(None):
        return None
    parts = [
        tuple(
            flow.shapes.number(bound) if isinstance(bound, fx.Node) else bound
            for bound in (part.start, part.stop)
        )
        for i, part in enumerate(index)
        if i not in (0, axis)
    ]
    known = all(bound is None or isinstance(bound, int) for part in parts for bound in part)
    return Crop(tuple(parts)) if known else None  # type: ignore[arg-type]


def _by_stride(here: Sequence[Size | None], there: Sequence[Size | None]) -> list[list[Step]]:
    """The pools of kernel = stride that explain the sizes at every probe, rounding up or down."""
    pairs = [(a, b) for a, b in zip(here, there, strict=True) if a and b]
    if not pairs or len(pairs[0][0]) != len(pairs[0][1]):
        return []
    dims = len(pairs[0][0])
    found: list[list[Step]] = []
    for ceil_mode in (True, False):
        strides: list[int] = []
        for axis in range(dims):
            n, m = pairs[0][0][axis], pairs[0][1][axis]
            if m < 1 or m > n:
                return []
            fits = [
                s
                for s in {n // m, -(-n // m), max(1, round(n / m))}
                if all(
                    (-(-a[axis] // s) if ceil_mode else a[axis] // s) == b[axis] for a, b in pairs
                )
            ]
            if not fits:
                break
            strides.append(min(fits))
        else:
            stride = tuple(strides)
            window = Window(stride, stride, (0,) * dims, (1,) * dims, ceil_mode)
            found.append([Pool(window)])
    return found
