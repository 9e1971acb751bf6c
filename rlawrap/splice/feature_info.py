"""What a backbone's feature maps are: where each comes from, its channels and its stride."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

import torch
from torch import nn

from rlawrap._torch import pytree
from rlawrap.capture.shadow import make_shadow
from rlawrap.errors import PlanError
from rlawrap.splice.recorded_call import recorded_call


@dataclass(frozen=True, kw_only=True)
class FeatureInfo:
    """One feature map. path: the block that makes it. channels and size: at the size measured.

    stride: pixels of the image from one of the map's to the next, the same on all axes; None
    where it is not the same everywhere, as behind an adaptive pool.
    """

    name: str
    path: str
    channels: int
    size: tuple[int, ...]
    stride: int | None


class FeatureInfos(Sequence[FeatureInfo]):
    """The feature maps of a backbone in their order, with the questions that timm's list answers.

    >>> one = FeatureInfo(name="0", path="layer4.1", channels=512, size=(7, 7), stride=32)
    >>> infos = FeatureInfos([one])
    >>> infos.channels(), infos.reduction(), infos.module_name()
    ([512], [32], ['layer4.1'])
    """

    def __init__(self, infos: Iterable[FeatureInfo]) -> None:
        self._infos = tuple(infos)

    @overload
    def __getitem__(self, index: int) -> FeatureInfo: ...
    @overload
    def __getitem__(self, index: slice) -> FeatureInfos: ...
    def __getitem__(self, index: int | slice) -> FeatureInfo | FeatureInfos:
        if isinstance(index, slice):
            return FeatureInfos(self._infos[index])
        return self._infos[index]

    def __len__(self) -> int:
        return len(self._infos)

    def __repr__(self) -> str:
        return f"FeatureInfos({list(self._infos)!r})"

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [info.channels for info in self._infos]

    def reduction(self) -> list[int]:
        """Stride of each map. Raises `PlanError` where one has none."""
        strides = [info.stride for info in self._infos if info.stride is not None]
        if len(strides) < len(self._infos):
            fixed = [info.path for info in self._infos if info.stride is None]
            rest = [info.path for info in self._infos if info.stride is not None]
            told = f" Leave them out: `return_layers={rest}`." if rest else ""
            raise PlanError(
                f"the maps of {fixed} have no stride: their size does not follow the image's.{told}"
            )
        return strides

    def module_name(self) -> list[str]:
        """The block that makes each map."""
        return [info.path for info in self._infos]

    def get_dicts(self) -> list[dict[str, Any]]:
        """The same as plain data."""
        return [asdict(info) for info in self._infos]


#: Added to each axis of the image to see how the maps grow; a multiple of every usual stride.
_MORE = 128


def measure(
    backbone: nn.Module,
    shape: tuple[int, ...],
    names: Iterable[str],
    paths: Iterable[str],
    example: Any = None,
) -> FeatureInfos:
    """Run a backbone without memory at two sizes, and see how its maps are and grow.

    `shape` is that of the image, with the batch; `example` are the inputs that the network was
    recorded with, of which those as large as the image grow with it. Where the larger image cannot
    be run (a network of one size), the stride is the quotient of the sizes, if that is whole. Only
    the last axes count that image and maps both have: frames may lie in the batch of the maps, or
    an axis more.
    """
    shadow = make_shadow(backbone)
    shadow.root.eval()

    def run(axes: int) -> list[tuple[int, ...]]:
        """The shapes of the maps, of an image that is larger along the last axes."""
        kept = len(shape) - axes
        sides = [side + _MORE for side in shape[kept:]]
        call = recorded_call(shadow, example, (*shape[:kept], *sides))
        with torch.no_grad(), shadow.on_meta():
            maps = shadow.root(*call.args, **call.kwargs)
        return [tuple(map_.shape) for map_ in pytree.tree_leaves(maps)]

    small = run(0)
    axes = min(len(shape), *map(len, small)) - 2
    try:
        large = run(axes)
    except (RuntimeError, ValueError, IndexError, AssertionError):
        large = [()] * len(small)
    return FeatureInfos(
        FeatureInfo(
            name=name,
            path=path,
            channels=a[1],
            size=a[2:],
            stride=_stride(*(sizes[len(sizes) - axes :] for sizes in (shape, a, b))),
        )
        for name, path, a, b in zip(names, paths, small, large, strict=True)
    )


def _stride(image: tuple[int, ...], small: tuple[int, ...], large: tuple[int, ...]) -> int | None:
    """The stride that all axes have, from how far the map grows with the image."""
    if not large:
        found = {side / size for side, size in zip(image, small, strict=True)}
    elif any(b <= a for a, b in zip(small, large, strict=True)):
        return None
    else:
        found = {_MORE / (b - a) for a, b in zip(small, large, strict=True)}
    one = found.pop()
    return int(one) if not found and one == int(one) else None
