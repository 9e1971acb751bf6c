"""Ways up again: how an image is enlarged, and what is done with the skip of its size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz import layers as L
from tests.fuzz.spec import LayerSpec

ENLARGING = ("interpolate", "upsample", "transposed", "shuffle")
SKIPS = ("cat", "add", "none")


class Shuffle(nn.Module):
    """Channels into pixels; in other than two dimensions each pixel is repeated."""

    def __init__(self, spec: LayerSpec, channels: int, factor: int) -> None:
        super().__init__()
        flat = spec.dims == 2
        self.wide = L.conv(spec, channels, channels * factor**2 if flat else channels, 3)
        self.enlarge = nn.PixelShuffle(factor) if flat else nn.Upsample(scale_factor=factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.enlarge(self.wide(x))


def enlarging(spec: LayerSpec, how: str, channels: int, factor: int) -> nn.Module:
    """A module that makes an image `factor` times larger; none for `interpolate`."""
    if how == "upsample":
        return nn.Upsample(scale_factor=factor)
    if how == "transposed":
        cls = L.per_dim(("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"), spec.dims)
        return cls(channels, channels, factor, stride=factor)
    return Shuffle(spec, channels, factor) if how == "shuffle" else nn.Identity()


class UpBlock(nn.Module):
    """Enlarges inside, joins the skip, convolves twice."""

    def __init__(
        self, spec: LayerSpec, how: str, skips: str, low: int, skip: int, factor: int
    ) -> None:
        super().__init__()
        self.how, self.skips, self.factor = how, skips, factor
        self.enlarge = enlarging(spec, how, low, factor)
        self.side = L.conv(spec, skip, low) if skips == "add" else None
        inputs = low + skip if skips == "cat" else low
        self.body = nn.Sequential(
            L.conv(spec, inputs, skip, 3), L.norm(spec, skip), L.act(spec),
            L.conv(spec, skip, skip, 3), L.act(spec),
        )  # fmt: skip

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if self.how == "interpolate" and self.skips == "none":
            return self.body(F.interpolate(x, scale_factor=self.factor))
        if self.how == "interpolate":
            x = F.interpolate(x, size=skip.shape[2:])
        else:
            x = self.enlarge(x)
        if self.skips == "none":
            return self.body(x)
        if self.how != "interpolate":  # up to the size of the skip, or down to it
            amounts: list[int] = []
            for axis in range(x.dim() - 1, 1, -1):
                more = skip.shape[axis] - x.shape[axis]
                amounts += [more // 2, more - more // 2]
            x = F.pad(x, amounts)
        if self.side is not None:
            return self.body(x + self.side(skip))
        return self.body(torch.cat([x, skip], 1))


class Decoder(nn.Module):
    """A way up, over the stages' images from the last but one to the first."""

    def __init__(
        self, spec: LayerSpec, how: str, skips: str, channels: list[int], strides: list[int]
    ) -> None:
        super().__init__()
        steps = list(zip(channels[::-1], channels[-2::-1], strides[::-1], strict=False))
        self.steps = nn.ModuleList(
            UpBlock(spec, how, skips, low, skip, factor) for low, skip, factor in steps
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        for step, skip in zip(self.steps, features[-2::-1], strict=True):
            x = step(x, skip)
        return x
