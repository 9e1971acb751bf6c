"""The norms on the last hidden state's way to the classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

import rlawrap


class Pooled(nn.Module):
    """Two blocks, and a pool as the test writes it."""

    def __init__(self, pool: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.fc, self.pool = net()[:-1], nn.Linear(8, 5), pool
        self.power = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("center", torch.full((8,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.pool(self, self.body(x)))
        return out


def gem(net: Any, x: Tensor) -> Tensor:
    powers = x.clamp(min=1e-6).pow(net.power)
    return F.avg_pool2d(powers, (x.size(-2), x.size(-1))).pow(1 / net.power).flatten(1)


POOLS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "sum": lambda net, x: x.sum((2, 3)),
    "gem": gem,
    "centered": lambda net, x: x.mean((2, 3)) - net.center,
    "reshaped": lambda net, x: x.reshape(x.size(0), x.size(1), -1).mean(2),
    "viewed": lambda net, x: x.view(x.size(0), x.size(1), -1).amax(-1),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_h_follows_pools_written_by_hand(pool: Callable[[Any, Tensor], Tensor]) -> None:
    base = Pooled(pool)
    model = rlawrap.apply(base, k=4)
    assert model.plan.joined == ("fc",)
    for side in (16, 23):
        image = torch.randn(2, 3, side, side)
        assert torch.allclose(model.eval()(image), base.eval()(image), atol=1e-6)
    model.train()(torch.randn(2, 3, 16, 16)).sum().backward()
    gradients = [p.grad for p in model.rla.head.join.parameters()]
    assert gradients and all(g is not None and bool(g.any()) for g in gradients)


class Grouped(nn.Module):
    """A residual block that trains on one image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(torch.relu(self.norm(x)))


def net(*head: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), Grouped(), Grouped(), *head, nn.Linear(8, 5))


POOL = (nn.AdaptiveAvgPool2d(1),)
ROWS = (*POOL, nn.Flatten())


@pytest.mark.parametrize(
    "head",
    [(*ROWS, nn.LayerNorm(8)), (*POOL, nn.GroupNorm(2, 8), nn.Flatten())],
    ids=["rows", "one pixel"],
)
@pytest.mark.parametrize("norm", ["batch", "layer", "instance"])
def test_a_base_that_trains_on_one_image_still_does(head: tuple[nn.Module, ...], norm: str) -> None:
    base = net(*head)
    image = torch.randn(1, 3, 16, 16)
    model = rlawrap.apply(base, k=4, norm=norm).train()
    assert torch.allclose(model(image), base.train()(image), atol=1e-6)
    joins = list(model.rla.head.join.values())
    assert not any(isinstance(m, nn.BatchNorm1d) for join in joins for m in join.modules())


@pytest.mark.parametrize("make", [nn.BatchNorm2d, nn.BatchNorm1d])
def test_a_batch_norm_of_the_base_has_its_like(make: Callable[[int], nn.Module]) -> None:
    head = (*POOL, make(8), nn.Flatten()) if make is nn.BatchNorm2d else (*ROWS, make(8))
    model = rlawrap.apply(net(*head), k=4)
    (join,) = model.rla.head.join.values()
    assert [type(m) for m in join.modules() if "Norm" in type(m).__name__] == [make]


def test_a_norm_of_several_pixels_has_its_like() -> None:
    base = net(LayerNorm2d(8), *ROWS)
    (join,) = rlawrap.apply(base, k=4).rla.head.join.values()
    assert any(isinstance(m, nn.BatchNorm2d) for m in join.modules())
