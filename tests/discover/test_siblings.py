"""Blocks for their siblings' sake have entries, branch and shortcut as these do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import random_rla

X = torch.randn(2, 3, 16, 16)


class Plain(nn.Module):
    """A residual block; kinds of it join elsewhere or not always."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.same = inputs == outputs and stride == 1
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2: nn.Module = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.short = nn.Identity() if self.same else nn.Conv2d(inputs, outputs, 1, stride)

    def branch(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(torch.relu(self.conv1(x)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.short(x))


class Add(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class ByModule(Plain):
    """A module without layers adds what it is given."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, stride)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.add(self.branch(x), self.short(x)))


class Skip(nn.Module):
    def __init__(self, short: nn.Module) -> None:
        super().__init__()
        self.short = short

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y + self.short(x)


class BySkip(Plain):
    """A module that holds the shortcut adds it, in the narrowing blocks by a convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, stride)
        self.skip = Skip(self.short)
        del self.short

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(self.branch(x), x))


class SometimesLinear(Plain):
    """The narrowing blocks have no activation: alone they would be one convolution."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        return self.conv2(torch.relu(y) if self.same else y) + self.short(x)


class Fuse(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, width, 3, 1, 1)
        self.far = nn.Conv2d(width, width, 3, 1, 2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.near(x)) + torch.relu(self.far(x))


class Holding(Plain):
    """A part joins in each; only the blocks that keep the shape add around it."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, stride)
        self.conv2, self.short = Fuse(outputs), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + x) if self.same else self.branch(x)


class Refine(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.conv(x))


class HoldingResidual(Holding):
    """The part is residual itself: its shortcut is no shortcut of the block."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, stride)
        self.conv2 = Refine(outputs)


class Net(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.body = nn.Sequential(kind(8, 8), kind(8, 12, 2), kind(12, 12), kind(12, 16, 2))
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


RESIDUAL = [Plain, ByModule, BySkip, SometimesLinear]
PARTLY = [Holding, HoldingResidual]


@pytest.mark.parametrize("kind", RESIDUAL)
def test_every_sibling_has_branch_and_shortcut(kind: type[Plain]) -> None:
    plan = rlawrap.inspect(Net(kind))
    short = "skip.short" if kind is BySkip else "short"
    for i, block in enumerate(plan.blocks):
        path = f"body.{i}"
        assert (block.path, block.entries) == (path, (f"{path}.conv1",))
        assert (block.branch, block.shortcut) == (f"{path}.conv2", f"{path}.{short}")
    assert len(plan.blocks) == 4


@pytest.mark.parametrize("kind", PARTLY)
def test_a_sibling_that_holds_their_part_is_a_block_without_shortcut(kind: type[Plain]) -> None:
    plan = rlawrap.inspect(Net(kind))
    assert [b.path for b in plan.blocks] == [f"body.{i}" for i in range(4)]
    assert [b.branch for b in plan.blocks[::2]] == ["body.0.conv2:add", "body.2.conv2:add"]
    assert [(b.branch, b.shortcut) for b in plan.blocks[1::2]] == [(None, None)] * 2


@pytest.mark.parametrize("kind", [*RESIDUAL, *PARTLY])
def test_blocks_by_their_class_are_wired_as_they_are_found(kind: type[Plain]) -> None:
    net = Net(kind)
    found = rlawrap.inspect(net)
    paths = [b.path for b in found.blocks]
    for choice in (kind, paths, "body.?", lambda path, module: isinstance(module, kind)):
        chosen = rlawrap.inspect(net, blocks=choice)
        assert (chosen.stages, chosen.head) == (found.stages, found.head)


@pytest.mark.parametrize("kind", [BySkip, SometimesLinear])
def test_h_is_updated_from_the_branch_of_a_sibling(kind: type[Plain]) -> None:
    base = Net(kind)
    model = rlawrap.apply(base, k=4, source="branch", share="none")
    for mode in (True, False):
        assert torch.equal(base.train(mode)(X), model.train(mode)(X))
    random_rla(model)
    seen: list[Tensor] = []
    model.get_submodule("body.1.conv2").register_forward_hook(lambda m, i, out: seen.append(out))
    model.rla.input["1"].register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    model(X)
    assert len(seen) == 2 and torch.equal(*seen)


def test_layers_by_name_are_wired_as_they_are_found() -> None:
    def layer(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU()]

    net = nn.Sequential(
        *layer(3, 8), *layer(8, 8), nn.MaxPool2d(2), *layer(8, 12), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip
    found = rlawrap.inspect(net)
    assert [(b.path, b.entries, b.output) for b in found.blocks] == [
        ("0", ("0",), "2"), ("3", ("3",), "5"), ("7", ("7",), "9")
    ]  # fmt: skip
    for choice in (nn.Conv2d, ["0", "3", "7"]):
        assert rlawrap.inspect(net, blocks=choice).stages == found.stages
    apart = rlawrap.inspect(net, blocks=["0", "2", "3", "7"])
    assert [(b.path, b.output) for b in apart.blocks][:2] == [("0", "1"), ("2", "2")]


class Linear(nn.Module):
    """Adds its input to a convolution of it: one convolution, and a block for its place alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv(x))


def test_what_folds_is_wired_as_one_convolution_when_it_is_named_too() -> None:
    stages = [nn.Sequential(Plain(8, 8), Linear(8)) for _ in range(2)]
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.Sequential(*stages))
    found = rlawrap.inspect(net)
    assert [(b.class_name, b.branch is None) for b in found.blocks] == [
        ("Plain", False), ("Linear", True)
    ] * 2  # fmt: skip
    assert rlawrap.inspect(net, blocks=(Plain, Linear)).stages == found.stages
