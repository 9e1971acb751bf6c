"""Decoders: what concatenates for the blocks that it holds, attention gates, routes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import Double, Small


class Residual(Double):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Encoder(nn.Module):
    def __init__(self, widths: Iterable[int], residual: bool) -> None:
        super().__init__()
        self.blocks, before = nn.ModuleList(), 3
        for width in widths:
            inner = [Residual(width, width)] if residual else []
            self.blocks.append(nn.Sequential(Double(before, width), *inner))
            before = width

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for block in self.blocks:
            maps.append(block(nn.functional.max_pool2d(maps[-1], 2) if maps else x))
        return maps


class Decoder(nn.Module):
    """As nnU-Net's: a loop that enlarges, concatenates and lets a block work on it."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, 2) for i, o in pairs)
        self.blocks = nn.ModuleList(Double(2 * o, o) for _, o in pairs)
        self.last = nn.Conv2d(widths[0], 2, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]
        for up, block, skip in zip(self.ups, self.blocks, maps[-2::-1], strict=True):
            x = block(torch.cat((up(x), skip), 1))
        return self.last(x)


class UNet(nn.Module):
    def __init__(self, *, residual: bool = False) -> None:
        super().__init__()
        widths = [8, 12, 12, 16]
        self.encoder, self.decoder = Encoder(widths, residual), Decoder(widths)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def agrees(net: nn.Module, size: int = 32) -> bool:
    x = torch.randn(2, 3, size, size)
    return torch.allclose(rlawrap.apply(net, k=4).eval()(x), net.eval()(x), atol=1e-6)


@pytest.mark.parametrize("residual", [False, True])
def test_a_decoder_that_loops_is_a_stage_and_its_modules_are_blocks(residual: bool) -> None:
    net = UNet(residual=residual)
    plan = rlawrap.inspect(net)
    inner = [f"encoder.blocks.{i}.{j}" for i in range(4) for j in range(1 + residual)]
    assert [b.path for b in plan.blocks] == inner + [f"decoder.blocks.{i}" for i in range(3)]
    assert dict(plan.left_out)["decoder"] == "concatenates for the blocks that it holds"
    assert agrees(net)


class Sparse(nn.Module):
    """A stage as SparseNet's: each module reads what some of those before it made."""

    def __init__(self, make: Callable[[int, int], nn.Module], channels: int, count: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential()
        for i in range(count):
            self.blocks.add_module(f"b{i}", make(channels + 4 * min(i, 2), 4))

    def forward(self, x: Tensor) -> Tensor:
        made = [x]
        for block in self.blocks:
            made.append(block(torch.cat(made[:1] + made[1:][-2:], 1)))
        return torch.cat(made[:1] + made[-2:], 1)


class Layer(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


def sparse(make: Callable[[int, int], nn.Module] = Double) -> nn.Module:
    return Small(Sparse(make, 8, 4), Sparse(make, 16, 3), last=24)


def test_modules_of_a_dense_row_are_blocks() -> None:
    net = sparse()
    plan = rlawrap.inspect(net)
    inner = [f"body.{i}.blocks.b{j}" for i in range(2) for j in range(4 - i)]
    assert [b.path for b in plan.blocks] == inner
    assert dict(plan.left_out)["body.0"] == "concatenates for the blocks that it holds"
    assert agrees(net)


def test_a_dense_row_of_single_layers_and_parallel_modules_are_one_block() -> None:
    plan = rlawrap.inspect(sparse(Layer))
    assert [b.path for b in plan.blocks] == ["body.0", "body.1"]
    net = Small(Parallel(), Parallel(), Parallel())
    assert [b.path for b in rlawrap.inspect(net).blocks] == ["body.0", "body.1", "body.2"]


class Parallel(nn.Module):
    """Four branches, which are concatenated two by two."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Double(8, 2) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = (branch(x) for branch in self.branches)
        return torch.cat((torch.cat((a, b), 1), torch.cat((c, d), 1)), 1)


class UpBlock(nn.Module):
    """One concatenation before two modules of one class: a block all the same."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = Double(inputs + skip, outputs), Double(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = nn.functional.interpolate(x, scale_factor=2)
        return self.second(self.first(torch.cat((x, skip), 1)))


class OfUpBlocks(UNet):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Identity()
        self.ups = nn.ModuleList((UpBlock(16, 12, 12), UpBlock(12, 12, 12), UpBlock(12, 8, 8)))

    def forward(self, x: Tensor) -> Tensor:
        *maps, x = self.encoder(x)
        for up, skip in zip(self.ups, maps[::-1], strict=True):
            x = up(x, skip)
        return x


def test_a_block_that_concatenates_once_is_a_block() -> None:
    assert [b.path for b in rlawrap.inspect(OfUpBlocks()).blocks] == ["ups.0", "ups.1", "ups.2"]


class Gate(nn.Module):
    """The attention gate of Attention U-Net: what it adds becomes a factor of the skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g, self.x, self.psi = (nn.Conv2d(width, n, 1) for n in (width, width, 1))

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.psi(torch.relu(self.g(g) + self.x(x))))


class Attending(UNet):
    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList(Gate(width) for width in (12, 12, 8))

    def forward(self, x: Tensor) -> Tensor:
        *maps, x = self.encoder(x)
        own = self.decoder
        for up, gate, block, skip in zip(own.ups, self.gates, own.blocks, maps[::-1], strict=True):
            x = up(x)
            x = block(torch.cat((x, gate(x, skip)), 1))
        return x


def test_what_an_attention_gate_adds_joins_no_branches() -> None:
    net = Attending()
    paths = [f"encoder.blocks.{i}.0" for i in range(4)] + [f"decoder.blocks.{i}" for i in range(3)]
    assert [b.path for b in rlawrap.inspect(net).blocks] == paths
    assert agrees(net)


class Routes(nn.Module):
    """YOLOv3 of a list of layers: steps that add, and layers that go back to earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(8))
        self.stem = nn.Conv2d(3, 8, 3)
        self.heads = nn.ModuleList(nn.Conv2d(n, 4, 1) for n in (8, 16))

    def forward(self, x: Tensor) -> Tensor:
        x, kept = self.stem(x), []
        for first, second in zip(self.convs[::2], self.convs[1::2], strict=True):
            x = x + torch.relu(second(torch.relu(first(x))))
            kept.append(x)
        return self.heads[0](x) + self.heads[1](torch.cat((x, kept[1]), 1))


def test_steps_that_a_later_layer_goes_back_to_are_steps() -> None:
    net = Routes()
    plan = rlawrap.inspect(net)
    assert [b.path for b in plan.blocks] == ["[0]", "[1]", "[2]", "[3]"]
    assert [b.entries for b in plan.blocks] == [(f"convs.{i}",) for i in (0, 2, 4, 6)]
    assert agrees(net)
