"""Channel attention: a gate for every channel, computed from the means of all channels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


def eca_kernel(channels: int) -> int:
    """ECA's adaptive kernel size: the odd number next to |log2(C) / 2 + 1 / 2|.

    Wang et al., "ECA-Net" (2020), equation 12 with gamma = 2 and b = 1.

    >>> [eca_kernel(c) for c in (256, 512, 1024, 2048)]
    [5, 5, 5, 7]
    """
    size = int(abs(math.log2(channels) + 1) / 2)
    return size if size % 2 else size + 1


class _Gate(nn.Module, ABC):
    """x times a gate for every channel; `gate` computes it from the channels' means."""

    def __init__(self, dims: int, channels_last: bool) -> None:
        super().__init__()
        self.dims, self.channels_last = dims, channels_last

    def forward(self, x: Tensor) -> Tensor:
        first = 1 if self.channels_last else 2
        gate = self.gate(x.mean(list(range(first, first + self.dims))))
        for _ in range(self.dims):
            gate = gate.unsqueeze(1 if self.channels_last else -1)
        return x * gate

    @abstractmethod
    def gate(self, means: Tensor) -> Tensor:
        """A factor for every channel, (B, C) from (B, C)."""


class ECA(_Gate):
    """Efficient channel attention: a convolution over the channels' means, without bias.

    Takes (B, C, ...) with `dims` spatial axes, or (B, ..., C) with `channels_last`.

    >>> ECA(kernel=5)(torch.zeros(2, 64, 7, 7)).shape
    torch.Size([2, 64, 7, 7])
    """

    def __init__(self, kernel: int, *, dims: int = 2, channels_last: bool = False) -> None:
        super().__init__(dims, channels_last)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def gate(self, means: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(means.unsqueeze(1)).squeeze(1))


class SE(_Gate):
    """Squeeze and excitation: two linear layers without bias, C to C / reduction to C.

    Hu et al., "Squeeze-and-excitation networks" (2018). Shapes as for `ECA`.
    """

    def __init__(
        self, channels: int, *, reduction: int = 16, dims: int = 2, channels_last: bool = False
    ) -> None:
        super().__init__(dims, channels_last)
        hidden = max(1, channels // reduction)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def gate(self, means: Tensor) -> Tensor:
        return self.fc(means)
