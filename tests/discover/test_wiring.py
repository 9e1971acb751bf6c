"""Where h enters a block, and which tensors are y, the shortcut and the input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from rlawrap.plan import Block
from tests.nets import Small


def second_block(cls: type[nn.Module]) -> Block:
    plan = rlawrap.inspect(Small(cls(), cls(), cls()), example_input=torch.zeros(2, 3, 16, 16))
    assert [b.path for b in plan.blocks] == ["body.0", "body.1", "body.2"]
    return plan.blocks[1]


class Projected(nn.Module):
    """A residual block whose shortcut has a convolution of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.short = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        s = self.short(x)
        return F.relu(s + self.norm(self.conv2(F.relu(self.conv1(x)))))


def test_a_convolution_of_the_shortcut_is_no_entry() -> None:
    block = second_block(Projected)
    assert block.entries == ("body.1.conv1",)
    assert block.branch == "body.1.norm"
    assert block.shortcut == "body.1.short.1"
    assert block.output == "body.1"
    assert (block.in_channels, block.channels, block.stride, block.size) == (8, 8, 1.0, (16, 16))


SUMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "stack, sum": lambda s, y, w: torch.stack([s, y]).sum(0),
    "stack, mean": lambda s, y, w: torch.mean(torch.stack((s, y), dim=-1), dim=[-1]),
    "lerp": lambda s, y, w: torch.lerp(s, y, w),
    "lerp method": lambda s, y, w: s.lerp(y, 0.25),
    "addcmul": lambda s, y, w: torch.addcmul(s, y, w),
    "addcmul, weight first": lambda s, y, w: torch.addcmul(s, w.sigmoid(), y, value=0.5),
}


@pytest.mark.parametrize("how", SUMS)
def test_the_shortcut_of_a_sum_that_is_no_addition_is_no_entry(how: str) -> None:
    class Summed(Projected):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((8, 1, 1), 0.3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.conv2(F.relu(self.conv1(x))))
            return F.relu(SUMS[how](self.short(x), y, self.weight))

    block = second_block(Summed)
    assert block.entries == ("body.1.conv1",)
    assert (block.branch, block.shortcut) == ("body.1.norm", "body.1.short.1")


NO_SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "weight is data": lambda s, y: torch.lerp(s, y, y.sigmoid()),
    "product of data": lambda s, y: torch.addcmul(s, y, s),
    "sum over another axis": lambda s, y: torch.stack([s, y], 1).mean(2).repeat(1, 4, 1, 1),
    "the stack is read again": lambda s, y: (t := torch.stack([s, y])).sum(0) * t.amax(0),
}


@pytest.mark.parametrize("how", NO_SUMS)
def test_other_weighted_sums_have_no_shortcut(how: str) -> None:
    class Other(Projected):
        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.conv2(F.relu(self.conv1(x))))
            return F.relu(NO_SUMS[how](self.short(x), y))

    block = second_block(Other)
    assert set(block.entries) == {"body.1.short.0", "body.1.conv1"}
    assert block.shortcut is None


class Squeezed(nn.Module):
    """A gate that reads a pooled tensor, before any full-size convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(8, 8, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        g = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return x + F.relu(self.conv(x * g))


def test_a_convolution_of_a_pooled_tensor_is_no_entry() -> None:
    assert second_block(Squeezed).entries == ("body.1.conv",)


class Partial(nn.Module):
    """Convolves a quarter of the channels, then all (a partial convolution)."""

    def __init__(self) -> None:
        super().__init__()
        self.partial = nn.Conv2d(2, 2, 3, padding=1)
        self.fc1, self.fc2 = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, [2, 6], 1)
        y = torch.cat([self.partial(a), b], 1)
        return x + self.fc2(F.relu(self.fc1(y)))


def test_behind_a_channel_split_h_enters_where_the_pieces_rejoin() -> None:
    assert second_block(Partial).entries == ("body.1.fc1",)


class Folding(nn.Module):
    """Parallel convolutions that are added, starting from 0 as `sum` does."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 5, padding=2)])
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(F.relu(sum(conv(x) for conv in self.convs)))


class Stacked(Folding):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.stack([conv(x) for conv in self.convs]).mean(0)
        return x + self.last(F.relu(y))


@pytest.mark.parametrize("cls", [Folding, Stacked])
def test_of_parallel_linear_branches_h_enters_the_largest(cls: type[nn.Module]) -> None:
    assert second_block(cls).entries == ("body.1.convs.1",)


class Branches(nn.Module):
    """Branches that are concatenated, one of them behind a pool, as in Inception."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 3, padding=1)
        self.pool, self.c = nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([self.a(x), self.b(x), self.c(self.pool(x))], 1))


def test_h_enters_every_branch_that_is_concatenated() -> None:
    block = second_block(Branches)
    assert block.entries == ("body.1.a", "body.1.b", "body.1.c")
    assert block.branch is None


class DepthwiseFirst(nn.Module):
    """A depthwise token mixer with its own residual, then an MLP that begins depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.fc1, self.fc2 = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(x)
        return x + self.fc2(F.gelu(self.fc1(self.depthwise(x))))


def test_h_enters_the_depthwise_convolution_that_a_dense_one_follows() -> None:
    block = second_block(DepthwiseFirst)
    assert block.entries == ("body.1.depthwise",)
    assert block.branch == "body.1.fc2"


class ChannelsLast(nn.Module):
    """A ConvNeXt block: linear layers on channels-last images."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.permute(0, 2, 3, 1))
        return x + self.fc2(F.gelu(self.fc1(y))).permute(0, 3, 1, 2)


def test_h_enters_linear_layers_on_channels_last_images() -> None:
    assert second_block(ChannelsLast).entries == ("body.1.fc1",)


class Pooling(nn.Module):
    """A token mixer without a convolution (PoolFormer)."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, 1, 1)
        self.fc1, self.fc2 = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + (self.pool(x) - x)
        return x + self.fc2(F.gelu(self.fc1(x)))


def test_without_a_convolution_in_the_mixer_h_enters_the_mlp() -> None:
    block = second_block(Pooling)
    assert block.entries == ("body.1.fc1",)
    assert block.branch == "body.1.fc2"


class Cell(nn.Module):
    """Reads the outputs of the two cells before it, as in NASNet."""

    def __init__(self) -> None:
        super().__init__()
        self.older, self.newer = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, older: Tensor) -> Tensor:
        p, q = self.older(F.relu(older)), self.newer(F.relu(x))
        return torch.cat([self.a(F.relu(p)) + q, self.b(F.relu(q)) + p], 1)


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.cells = nn.ModuleList(Cell() for _ in range(3))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        older = x = self.stem(x)
        for cell in self.cells:
            x, older = cell(x, older), x
        return self.fc(x.mean((2, 3)))


def test_of_several_inputs_h_enters_with_the_latest() -> None:
    plan = rlawrap.inspect(Cells(), example_input=torch.zeros(2, 3, 16, 16))
    assert plan.blocks[2].entries == ("cells.2.newer",)
    assert plan.blocks[2].input == "cells.1:cat"


class Reduction(nn.Module):
    """A DARTS cell: the older input is brought to the newer one's size by a strided convolution."""

    def __init__(self, stride: int, older: int = 1) -> None:
        super().__init__()
        self.older, self.newer = nn.Conv2d(8, 4, 1, older), nn.Conv2d(8, 4, 1)
        self.a, self.b = (nn.Conv2d(4, 4, 3, stride, 1) for _ in range(2))

    def forward(self, older: Tensor, x: Tensor) -> Tensor:
        p, q = self.older(F.relu(older)), self.newer(F.relu(x))
        return torch.cat([self.a(F.relu(p)), self.b(F.relu(q))], 1)


class Darts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        strides = [(1, 1), (2, 1), (1, 2), (1, 1), (2, 1), (1, 2)]
        self.cells = nn.ModuleList(Reduction(*given) for given in strides)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        older = x = self.stem(x)
        for cell in self.cells:
            older, x = x, cell(older, x)
        return self.fc(x.mean((2, 3)))


def test_the_latest_input_is_chosen_before_the_largest_image() -> None:
    base = Darts().eval()
    plan = rlawrap.inspect(base, example_input=torch.zeros(2, 3, 16, 16))
    assert [b.entries for b in plan.blocks[1:]] == [(f"cells.{i}.newer",) for i in range(1, 6)]
    assert [b.input for b in plan.blocks[1:]] == [f"cells.{i}:cat" for i in range(5)]
    assert [b.stride for b in plan.blocks] == [1.0, 2.0, 1.0, 1.0, 2.0, 1.0]
    model = rlawrap.apply(base, k=4, plan=plan)
    for size in (16, 17, 23):
        x = torch.randn(2, 3, size, size + 2)
        assert torch.equal(model(x), base(x))


def test_a_block_whose_only_layer_is_opaque_says_so() -> None:
    class Opaque(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(x)

    plan = rlawrap.inspect(
        Small(Opaque(), Opaque()),
        leaf_modules=[Opaque],
        blocks=Opaque,
        example_input=torch.zeros(2, 3, 16, 16),
    )
    assert [b.entries for b in plan.blocks] == [(), ()]
    assert plan.blocks[0].note == "a leaf module: h reads its output and cannot enter it"


def test_the_head_is_the_first_layer_behind_the_last_block() -> None:
    class Wide(Small):
        def __init__(self, *body: nn.Module) -> None:
            super().__init__(*body)
            self.last = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.relu(self.last(self.body(self.stem(x)))).mean((2, 3)))

    image = torch.zeros(2, 3, 16, 16)
    assert rlawrap.inspect(Small(Projected(), Projected()), example_input=image).head == ("fc",)
    assert rlawrap.inspect(Wide(Projected(), Projected()), example_input=image).head == ("last",)


class Reversible(nn.Module):
    """Takes and returns a pair, each half updated from the other."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = (nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)) for _ in range(2))

    def forward(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        a, b = pair
        a = a + self.f(b)
        return a, b + self.g(a)


class Halves(Small):
    def forward(self, x: Tensor) -> Tensor:
        pair = torch.chunk(self.stem(x), 2, 1)
        for block in self.body:
            pair = block(pair)
        return self.fc(torch.cat(pair, 1).mean((2, 3)))


def test_of_a_tuple_the_part_that_the_entry_reads_is_the_input() -> None:
    net = Halves(Reversible(), Reversible(), Reversible()).eval()
    plan = rlawrap.inspect(net)
    assert [b.entries for b in plan.blocks] == [(f"body.{i}.f.1",) for i in range(3)]
    assert [b.input for b in plan.blocks] == [":getitem#1", "body.0:add#1", "body.1:add#1"]
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(rlawrap.apply(net, k=4, plan=plan).eval()(x), net(x))


class Multiscale(nn.Module):
    """Depthwise convolutions of three sizes that fold into one, before a pointwise one."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        sizes = (5, 3, 1)
        self.wide = nn.ModuleList(nn.Conv2d(8, 8, n, padding=n // 2, groups=8) for n in sizes)
        self.narrow = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide[0](x) + self.wide[1](x) + self.wide[2](x)
        y = self.narrow(F.relu(y))
        return x + y if self.residual else y


def test_a_sum_before_a_convolution_is_no_join_of_its_block() -> None:
    """Blocks without a shortcut have no branch, though others of their class are residual."""
    net = Small(*(Multiscale(residual) for residual in (False, True, False, True)))
    plan = rlawrap.inspect(net, example_input=torch.zeros(2, 3, 16, 16))
    assert [b.path for b in plan.blocks] == ["body.0", "body.1", "body.2", "body.3"]
    assert [b.branch for b in plan.blocks] == [None, "body.1.narrow", None, "body.3.narrow"]
    assert [b.entries for b in plan.blocks] == [(f"body.{i}.wide.0",) for i in range(4)]
