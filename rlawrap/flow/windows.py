"""Convolutions and sliding windows as data: channels, groups, and what becomes of a size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Window:
    """A sliding window: what a convolution or a pool does to each spatial size."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False

    def size(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """The output's spatial size."""
        out = []
        for n, k, s, p, d in zip(
            spatial, self.kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            span = n + 2 * p - d * (k - 1) - 1
            if self.ceil_mode:
                size = -(-span // s) + 1
                if (size - 1) * s >= n + p:  # the last window must start inside
                    size -= 1
            else:
                size = span // s + 1
            out.append(size)
        return tuple(out)


@dataclass(frozen=True)
class Conv:
    """A learned convolution or linear layer: its channels, groups and window."""

    in_channels: int
    out_channels: int
    groups: int
    window: Window | None  # None for a linear layer
    transposed: bool = False

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.groups == self.in_channels

    @property
    def spatial_kernel(self) -> bool:
        return self.window is not None and max(self.window.kernel) > 1


def per_axis(value: Any, dims: int) -> tuple[int, ...]:
    """A setting given once or per axis, per axis."""
    if isinstance(value, (tuple, list)):
        return tuple(int(v) for v in value) if len(value) == dims else (int(value[0]),) * dims
    return (int(value),) * dims
