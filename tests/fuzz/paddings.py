"""Padding that is no setting of a convolution: a layer before it, computed amounts, too much."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz.spec import LayerSpec

PADDINGS = ("own", "reflect", "replicate", "circular", "constant", "computed", "sliced")


def _layer(how: str, dims: int, amounts: tuple[int, ...]) -> nn.Module:
    name = {
        "reflect": "ReflectionPad", "replicate": "ReplicationPad", "circular": "CircularPad",
        "constant": "ConstantPad",
    }[how]  # fmt: skip
    cls = getattr(nn, f"{name}{dims}d")
    return cls(amounts, 0.5) if how == "constant" else cls(amounts)


class Same(nn.Module):
    """As much padding as makes ceil(size / stride) pixels (TensorFlow's), before a convolution."""

    def __init__(self, conv: nn.Module, kernels: tuple[int, ...], stride: int, dilation: int):
        super().__init__()
        self.conv, self.stride = conv, stride
        self.reach = tuple(dilation * (k - 1) + 1 for k in kernels)

    def forward(self, x: Tensor) -> Tensor:
        amounts: list[int] = []
        for reach, size in reversed(list(zip(self.reach, x.shape[2:], strict=True))):
            out = -(-size // self.stride)
            more = max((out - 1) * self.stride + reach - size, 0)
            amounts += [more // 2, more - more // 2]
        return self.conv(F.pad(x, amounts))


class Sliced(nn.Module):
    """Pads by one more on each side, and takes that away again."""

    def __init__(self, conv: nn.Module, amounts: tuple[int, ...]) -> None:
        super().__init__()
        self.conv, self.amounts = conv, tuple(n + 1 for n in amounts)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.amounts)
        return self.conv(x[(slice(None), slice(None), *(slice(1, -1) for _ in x.shape[2:]))])


def padded(
    spec: LayerSpec, conv: nn.Module, kernels: tuple[int, ...], stride: int, dilation: int
) -> nn.Module:
    """A convolution without padding of its own, behind the padding that keeps the size."""
    amounts = tuple(dilation * (k - 1) // 2 for k in reversed(kernels) for _ in range(2))
    if spec.padding == "computed":
        return Same(conv, kernels, stride, dilation)
    if spec.padding == "sliced":
        return Sliced(conv, amounts)
    return nn.Sequential(_layer(spec.padding, spec.dims, amounts), conv)
