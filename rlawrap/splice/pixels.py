"""What layers make of a value that is the same at every pixel, known at one pixel alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rlawrap.cells.base import GroupNorm
from rlawrap.design.layers import (
    ACTIVATIONS,
    CONVS,
    CeilPool3d,
    ChannelsLast,
    PadSides,
    Resize,
    SameConv,
    Slice,
)

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, GroupNorm)
#: They keep zeros zeros, whatever their sizes are.
SIZES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, CeilPool3d, PadSides, Slice, Resize)


def stays_zero(layer: nn.Module, zero: bool) -> bool | None:
    """Whether a layer makes zeros of a pixel; None where it would make it unlike at other pixels,
    or where that is not known."""
    kind = type(layer)
    if isinstance(layer, SIZES):
        return True if zero and getattr(layer, "mode", "constant") == "constant" else None
    if kind is SameConv:
        return True if zero and is_plain_conv(layer.conv) and layer.conv.bias is None else None  # type: ignore[union-attr]
    if kind in CONVS:
        return _after_conv(layer, zero)
    if kind in NORMS:
        return False
    if kind in (nn.Identity, *ACTIVATIONS) and not getattr(layer, "inplace", False):
        return zero and not bool(layer(torch.zeros(1)).any())
    return zero if kind is ChannelsLast else None


def is_plain_conv(layer: Any) -> bool:
    zeros = type(layer) in CONVS and layer.padding_mode == "zeros"
    return zeros and not isinstance(layer.padding, str)


def _after_conv(conv: Any, zero: bool) -> bool | None:
    if not is_plain_conv(conv):
        return None
    single = all(n == 1 for n in conv.kernel_size) and not any(conv.padding)
    one_pixel = all(
        2 * p < d * (n - 1) + s and 2 * p >= d * (n - 1)
        for n, s, p, d in zip(
            conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True
        )
    )
    if not single and not (zero and one_pixel):
        return None
    return zero and conv.bias is None
