"""Layers and functions of einops, which find their sizes in caches of their own."""

from __future__ import annotations

import einops
import pytest
from einops.layers.torch import Rearrange, Reduce
from torch import Tensor

from tests.capture.checking import Net, applied, check, images


class Layers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.last = Rearrange("b c h w -> b h w c")
        self.mean = Reduce("b h w c -> b c", "mean")

    def features(self, x: Tensor) -> Tensor:
        return self.fc(self.mean(self.last(self.body(self.stem(x)))))


class Functions(Net):
    def features(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        h = x.shape[2]
        x = einops.rearrange(x, "b c h w -> b (h w) c", h=h)
        x = einops.rearrange(x * 2, "b (h w) c -> b c h w", h=h)
        return self.fc(einops.reduce(x, "b c h w -> b c", "mean"))


@pytest.mark.parametrize("net", [Layers, Functions])
def test_at_every_size(net: type[Net]) -> None:
    base = net()
    check(base, applied(base), images())
