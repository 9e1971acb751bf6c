"""Shapes of images to try a network with."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from rlawrap._torch import ConvNd
from rlawrap.errors import PlanError

Shape = tuple[int, ...]


def kernel_read_first(model: nn.Module) -> tuple[int, int] | None:
    """(channels, spatial dimensions) that the first convolution of a network reads, if it has one.

    Without convolution modules, the first parameter of a kernel's shape is taken for its weight.
    """
    for module in model.modules():
        if isinstance(module, ConvNd):
            return module.in_channels, len(module.kernel_size)
    for parameter in model.parameters():
        if 3 <= parameter.dim() <= 5:
            return parameter.shape[1], parameter.dim() - 2
    return None


def candidate_inputs(model: nn.Module, first: nn.Module | None = None) -> list[Shape]:
    """Input shapes to try in turn: the network's own first, then sizes in common use.

    `first` is the convolution that runs first, where that is known.
    Raises `PlanError` for a network of which nothing tells how many channels an image has.
    """
    config = getattr(model, "default_cfg", None) or getattr(model, "pretrained_cfg", None)
    own = config.get("input_size") if isinstance(config, Mapping) else None
    shapes: list[Shape] = [(2, *map(int, own))] if own else []
    reads = kernel_read_first(model if first is None else first)
    if reads is None:
        raise PlanError(
            f"{type(model).__name__} holds no convolution: no such module, and no parameter of a "
            "kernel's shape. If its forward makes its kernels otherwise, pass `example_input=x`, "
            "where x is an image."
        )
    channels, dims = reads
    if first is not None:
        shapes = []
    return list(dict.fromkeys([*shapes, *((2, channels, *sides) for sides in common_sides(dims))]))


def common_sides(dims: int) -> list[tuple[int, ...]]:
    """Sides of images in common use; of clips and volumes the first is 16."""
    sizes = {
        1: (1024, 256, 128, 4096, 16000, 64),
        2: (224, 32, 64, 28, 96, 128, 299, 256, 331, 384, 16, 48, 512),
        3: (112, 224, 32, 64, 16),
    }[dims]
    depth = (16,) if dims == 3 else ()
    return [(*depth, *(size,) * (dims - len(depth))) for size in sizes]


def probes_of(shape: Shape) -> list[Shape]:
    """The shape itself, one larger with unlike sides, and two odd ones."""
    spatial = shape[2:]
    step = 32 if min(spatial) >= 64 or len(spatial) == 1 else 8
    larger = tuple(n + step * (i + 1) for i, n in enumerate(spatial))
    odd = tuple(n + step + 5 + 2 * i if n % 2 == 0 else n + step + 4 for i, n in enumerate(spatial))
    odder = tuple(n + step // 2 + 3 + 4 * i for i, n in enumerate(spatial))
    return [shape, *((*shape[:2], *s) for s in (larger, odd, odder))]


def odd_at_every_depth(shape: Shape) -> Shape:
    """A shape more than twice as large, whose maps tell how their size was rounded at any depth.

    Every other side is odd however often it is halved and rounded down, as 255 is, and those
    between when it is rounded up, as 257 is. Maps of one size are of that size here, too.
    """
    return (*shape[:2], *(p + 1 if i % 2 else p - 1 for i, p in enumerate(_powers(shape))))


def one_above_even(shape: Shape) -> Shape:
    """A shape as large, all sides like 257: halved and enlarged again they have lost a pixel.

    A network that refuses odd maps deep down, to concatenate them, may take it.
    """
    return (*shape[:2], *(p + 1 for p in _powers(shape)))


def _powers(shape: Shape) -> list[int]:
    """For each side a power of two more than twice as large."""
    return [2 << (n + 1).bit_length() for n in shape[2:]]
