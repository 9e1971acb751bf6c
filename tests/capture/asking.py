"""Blocks whose forward asks about shapes (apart from the tests: pytest rewrites `assert` there)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class EqualShapes(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if y.shape == x.shape:
            y = y + x
        return F.relu(y)


class EqualChannels(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if y.size(1) != x.size(1):
            return y
        return F.relu(y + x)


class Rank(Block):
    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            x = x.unsqueeze(0)
        if x.ndim != 4:
            raise ValueError("images only")
        return F.relu(x + self.body(x))


class Asserts(Block):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 8, "eight channels"
        assert x.shape[-1] > 3
        return F.relu(x + self.body(x))


class Lengths(Block):
    """Loops over axes, unpacks sizes, counts channels."""

    def forward(self, x: Tensor) -> Tensor:
        means = x
        for axis in range(2, len(x.shape)):
            means = means.mean(axis, keepdim=True)
        y = F.interpolate(self.body(x - means), size=list(x.shape[2:]))
        for _ in range(x.shape[1] // 4):
            y = y * 0.9
        return F.relu(x + y)


class PathDrop(Block):
    """Stochastic depth with a mask of any rank."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.training:
            y = y * x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.8)
        return F.relu(x + y)


class Chunks(Block):
    def forward(self, x: Tensor) -> Tensor:
        parts = [part * 0.5 for part in self.body(x).chunk(2, 1)]
        return F.relu(x + torch.cat(parts, 1))
