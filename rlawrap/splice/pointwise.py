"""1x1 convolutions of h by the library that is faster for them.

On one thread and below 16 images PyTorch gives unstrided 1x1 convolutions to a general matrix
product, image by image, whatever they are; with a dilation it asks oneDNN, which takes two thirds
to nine tenths of the time for large ones in channels-last memory. A window of one pixel has nothing
to dilate: the numbers are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlawrap._torch import is_recorded, is_transformed

#: Multiply-accumulates below which what oneDNN does for each call at all costs more than it saves.
LARGE = 20_000_000
#: The same where there is a backward pass, of which it saves more.
LARGE_LEARNING = 6_000_000
#: Pixels of all images below which it costs more to put the weights into a form of its own.
PIXELS = 700


def is_point_conv(layer: nn.Module | None) -> bool:
    """Whether a layer is an `nn.Conv2d` that reads each pixel for itself, all channels of it."""
    if type(layer) is not nn.Conv2d or isinstance(layer.padding, str):
        return False
    alone = is_point(layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return alone and layer.groups == 1


def is_point(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> bool:
    """Whether a convolution with this window reads every pixel, and each for itself."""
    return {*kernel, *stride, *dilation} == {1} and not any(padding)


def point_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`conv2d` with a 1x1 window, of stride 1 and without padding."""
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return F.conv2d(x, weight, bias, dilation=point_dilation(x, [weight], learning))


def point_dilation(x: Tensor, weights: Sequence[Tensor], learning: bool) -> int:
    """A dilation for 1x1 convolutions of x: 2 where oneDNN is to be asked, else 1.

    learning: a backward pass follows, or is what is asked for.
    """
    # Compilers choose for themselves; other types and devices have no matrix product to avoid.
    if is_recorded(x) or x.dtype != torch.float32 or x.device.type != "cpu":
        return 1
    work = x.numel() * sum(len(weight) for weight in weights)
    least = LARGE_LEARNING if learning else LARGE
    if work < least or x.numel() < PIXELS * x.shape[1]:
        return 1
    usual = x.is_contiguous(memory_format=torch.channels_last) and _has_onednn()
    return 2 if usual and not is_transformed(x, *weights) and not _is_cast() else 1


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def _is_cast() -> bool:
    return torch.is_autocast_enabled("cpu")
