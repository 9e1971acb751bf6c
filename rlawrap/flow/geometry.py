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
from rlawrap.flow.vocabulary import PAD_MODULES
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
    """Zeros around h: (before, after) for each spatial axis."""

    sides: tuple[tuple[int, int], ...]

    def size(self, spatial: Size) -> Size:
        return tuple(n + a + b for n, (a, b) in zip(spatial, self.sides, strict=True))


@dataclass(frozen=True)
class Resize:
    """Nearest-neighbour resizing to the size of a tensor: where no pooling gives that size."""

    def size(self, spatial: Size) -> Size:  # pragma: no cover - its size is its goal's
        raise AssertionError("a resize takes its size from its goal")


Step = Pool | Pad | Resize


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
    the sizes at every probe.
    """
    if flow.same_size(source, goal):
        return []
    here, there = flow.resolution(source), flow.resolution(goal)
    path = _shortest(flow, source, goal)
    if path is not None:
        steps = _along(flow, path)
        if steps is not None and _fits(steps, here, there):
            return steps
    guess = _by_stride(here, there)
    return guess if guess is not None and _fits(guess, here, there) else None


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


def _along(flow: Flow, path: list[fx.Node]) -> list[Step] | None:
    steps: list[Step] = []
    for node in path:
        sources = [s for s in flow.sources[node] if flow.channel_axis(s) is not None]
        if flow.channel_axis(node) is None or not sources:
            return None
        if flow.same_size(node, sources[0]):
            continue
        window = flow.ops.window(node)
        if window is not None:
            if len(window.kernel) != flow.rank - 2:
                return None
            steps += pools_for(window)
            continue
        pad = padding_of(flow, node)
        if pad is None:
            return None
        steps.append(pad)
    return steps


def padding_of(flow: Flow, node: fx.Node) -> Pad | None:
    """The constant padding of spatial axes that a node makes, or None."""
    dims = flow.rank - 2
    module = flow.trace.leaf(node)
    flat: Any = None
    if module is not None and isinstance(module, PAD_MODULES):
        flat = module.padding
    elif node.op == "call_function" and name_of(node) == "pad":
        flat = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    if not isinstance(flat, (tuple, list)) or not all(isinstance(n, int) for n in flat):
        return None
    if len(flat) % 2 or len(flat) > 2 * dims:
        return None
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    pairs += [(0, 0)] * (dims - len(pairs))
    return Pad(tuple(reversed(pairs)))


def _by_stride(here: Sequence[Size | None], there: Sequence[Size | None]) -> list[Step] | None:
    """A pool of kernel = stride that explains the sizes at every probe, rounding up or down."""
    pairs = [(a, b) for a, b in zip(here, there, strict=True) if a and b]
    if not pairs or len(pairs[0][0]) != len(pairs[0][1]):
        return None
    dims = len(pairs[0][0])
    for ceil_mode in (True, False):
        strides: list[int] = []
        for axis in range(dims):
            n, m = pairs[0][0][axis], pairs[0][1][axis]
            if m < 1 or m > n:
                return None
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
            return [Pool(window)]
    return None
