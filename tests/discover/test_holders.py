"""Networks whose modules hold, gather or repeat the blocks instead of being them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import Residual, Small

IMAGE = torch.zeros(2, 3, 16, 16)


class Double(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Up(nn.Module):
    """Enlarges an image, and convolves it beside the one from the way down."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, 2)
        self.conv = Double(2 * outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], 1))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.down1 = Double(3, 8), nn.Sequential(nn.MaxPool2d(2), Double(8, 12))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), Double(12, 16))
        self.up1, self.up2, self.last = Up(16, 12), Up(12, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.down1(a)
        return self.last(self.up2(self.up1(self.down2(b), b), a))


class Hourglass(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.beside, self.before, self.behind = (Residual(8, 8) for _ in range(3))
        self.inner = Hourglass(depth - 1) if depth > 1 else Residual(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.behind(self.inner(self.before(F.max_pool2d(x, 2))))
        return self.beside(x) + F.interpolate(y, scale_factor=2)


def agrees(net: nn.Module) -> bool:
    x = torch.randn(2, 3, 16, 16)
    return torch.allclose(rlawrap.apply(net, k=4).eval()(x), net.eval()(x), atol=1e-6)


def test_what_concatenates_for_one_convolving_module_is_left_to_it() -> None:
    net = UNet()
    plan = rlawrap.inspect(net, example_input=IMAGE)
    assert [b.path for b in plan.blocks] == ["first", "down1.1", "down2.1", "up1.conv", "up2.conv"]
    assert plan.blocks[3].entries == ("up1.conv.layers.0",)
    assert [b.after for b in plan.blocks] == [None, 0, 1, 1, 0]
    reason = "concatenates for the block that it holds"
    assert dict(plan.left_out) == {"up1": reason, "up2": reason}
    assert agrees(net)


def test_a_module_that_holds_one_of_its_own_class_is_a_stage() -> None:
    net = Small(Hourglass(2))
    plan = rlawrap.inspect(net, example_input=IMAGE)
    inner = [f"inner.{name}" for name in ("before", "inner", "behind", "beside")]
    assert [b.path.removeprefix("body.0.") for b in plan.blocks] == [
        "before", *inner, "behind", "beside",
    ]  # fmt: skip
    assert dict(plan.left_out)["body.0"] == "a stage: it holds blocks"
    assert agrees(net)


def test_a_dense_layer_that_holds_one_convolving_module_is_a_block() -> None:
    class Dense(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.conv = Double(inputs, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, self.conv(x)], 1)

    net = Small(Double(8, 8), Dense(8), Dense(12), Dense(16), last=20)
    plan = rlawrap.inspect(net, example_input=IMAGE)
    assert [b.path for b in plan.blocks] == ["body.1", "body.2", "body.3"]


class DenseLayer(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4, 3, padding=1)

    def forward(self, *before: Tensor) -> Tensor:
        return self.conv(F.relu(self.norm(torch.cat(before, 1))))


class DenseBlock(nn.Module):
    """A dense block that is no list, and loops over its children."""

    def __init__(self, inputs: int, layers: int = 3) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"layer{i}", DenseLayer(inputs + 4 * i))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.children():
            maps.append(layer(*maps))
        return torch.cat(maps, 1)


def test_a_module_that_concatenates_what_its_children_make_is_a_stage() -> None:
    net = Small(DenseBlock(8), nn.Conv2d(20, 8, 1), DenseBlock(8), last=20)
    plan = rlawrap.inspect(net, example_input=IMAGE)
    assert [b.path for b in plan.blocks] == [
        f"body.{stage}.layer{i}" for stage in (0, 2) for i in range(3)
    ]
    assert dict(plan.left_out)["body.0"] == "a stage: it holds blocks"
    assert agrees(net)


def test_repeated_modules_that_are_no_blocks_are_named() -> None:
    net = Small(Double(8, 8), Residual(8, 8), Double(8, 8), Residual(8, 8))
    plan = rlawrap.inspect(net, example_input=IMAGE)
    assert [b.path for b in plan.blocks] == ["body.1", "body.3"]
    reason = "makes no join, as the blocks do; blocks= can take it"
    assert dict(plan.left_out) == {"body.0": reason, "body.2": reason}


def test_what_lies_in_a_block_is_not_left_out() -> None:
    class Folding(nn.Module):
        """Branches that fold into one convolution."""

        def __init__(self) -> None:
            super().__init__()
            self.large, self.small = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.large(x) + self.small(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Folding()

        def forward(self, x: Tensor) -> Tensor:
            return x + F.relu(self.inner(x))

    plan = rlawrap.inspect(Small(Outer(), Folding(), Outer()), example_input=IMAGE)
    assert [b.path for b in plan.blocks] == ["body.0", "body.2"]
    assert [path for path, _ in plan.left_out] == ["body.1"]


@pytest.mark.parametrize("call", [rlawrap.inspect, rlawrap.apply])
def test_no_plan_that_nothing_reads(call: Callable[..., Any]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8, 8), nn.Flatten(2))
    with pytest.raises(rlawrap.PlanError, match="nothing reads h: the blocks are 1; h enters none"):
        call(net, example_input=IMAGE)
    with pytest.raises(rlawrap.PlanError, match="nothing reads h: the blocks are 1; h enters none"):
        call(net, example_input=IMAGE, blocks=Residual)
    read = nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8, 8), nn.Conv2d(8, 4, 1))
    plan = getattr(call(read, example_input=IMAGE), "plan", None) or rlawrap.inspect(read)
    assert plan.head == ("2",)


def test_one_block_in_a_network_of_many_convolutions_warns() -> None:
    def net(tail: int) -> nn.Module:
        layers = [nn.Conv2d(8, 8, 1) for _ in range(tail)]
        return nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8, 8), *layers)

    with pytest.warns(rlawrap.RLAWarning, match="of 6 convolutions only one block was made, 1;"):
        plan = rlawrap.inspect(net(3), example_input=IMAGE)
    assert [b.path for b in plan.blocks] == ["1"]
    assert len(rlawrap.inspect(net(2), example_input=IMAGE).blocks) == 1
    assert len(rlawrap.inspect(net(3), example_input=IMAGE, blocks=Residual).blocks) == 1
