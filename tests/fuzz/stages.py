"""The ways to write a stage: Sequential, a loop, a Sequential that joins, a module called again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz import layers as L
from tests.fuzz.blocks import KINDS
from tests.fuzz.conditioning import CONDITIONED, ConditionedStage
from tests.fuzz.spec import LayerSpec, StageSpec


def unit(spec: LayerSpec, stage: StageSpec, inputs: int, outputs: int) -> nn.Sequential:
    """Convolution, norm, activation at one resolution."""
    return nn.Sequential(
        L.conv(spec, inputs, outputs, stage.kernel, dilation=stage.dilation),
        L.norm(spec, outputs),
        L.act(spec),
    )


def transition(spec: LayerSpec, stage: StageSpec, inputs: int) -> nn.Sequential:
    return nn.Sequential(
        L.conv(spec, inputs, stage.channels, 3, stride=stage.stride), L.norm(spec, stage.channels)
    )


def blocks(spec: LayerSpec, stage: StageSpec, inputs: int) -> list[nn.Module]:
    """`depth` blocks; the first strides. A dense stage strides in a pool of its own instead."""
    made: list[nn.Module] = []
    channels = inputs
    for i in range(stage.depth):
        stride = stage.stride if i == 0 else 1
        if stage.kind == "dense" and stride > 1:
            pool = L.per_dim(("AvgPool1d", "AvgPool2d", "AvgPool3d"), spec.dims)
            made.append(nn.Sequential(L.conv(spec, channels, channels), pool(stride)))
        block = KINDS[stage.kind](spec, stage, channels, stride)
        made.append(block)
        channels = block.out_channels
    return made


class LoopStage(nn.Module):
    """Loops over its blocks in its own forward."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class JoiningSequential(nn.Sequential):
    """A Sequential that adds each member's result to its input."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = x + layer(x)
        return x


class GatheringStage(nn.Module):
    """Each layer reads all that came before it (DenseNet's block, written with a list)."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({f"layer{i}": m for i, m in enumerate(members)})

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers.values():
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class InlineStage(nn.Module):
    """Residual steps without a module of their own: lists of convolutions and norms."""

    def __init__(self, spec: LayerSpec, stage: StageSpec) -> None:
        super().__init__()
        c = stage.channels
        self.how = spec.join
        self.convs = nn.ModuleList(
            L.conv(spec, c, c, stage.kernel, groups=stage.groups) for _ in range(stage.depth)
        )
        self.norms = nn.ModuleList(L.norm(spec, c) for _ in range(stage.depth))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(L.join(self.how, x, norm(conv(x))))
        return x


class SharedStage(nn.Module):
    """One block called `times` times."""

    def __init__(self, first: nn.Module, block: nn.Module, times: int) -> None:
        super().__init__()
        self.first, self.block, self.times = first, block, times

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(self.times):
            x = self.block(x)
        return x


class HalvedStage(SharedStage):
    """One block called again on half the size, and added to what it made of the whole."""

    def __init__(self, first: nn.Module, block: nn.Module, times: int, dims: int) -> None:
        super().__init__(first, block, times)
        self.pool = L.per_dim(("AvgPool1d", "AvgPool2d", "AvgPool3d"), dims)(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.first(x))
        for _ in range(self.times):
            x = x + F.interpolate(self.block(self.pool(x)), size=x.shape[2:])
        return x


class Steps(nn.Module):
    """Sequentials whose results the network's own forward adds to what went into them."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int) -> None:
        super().__init__()
        c = stage.channels
        self.how, self.first = spec.join, transition(spec, stage, inputs)
        self.members = nn.ModuleList(double(spec, stage, c, c) for _ in range(stage.depth))


def double(spec: LayerSpec, stage: StageSpec, inputs: int, outputs: int) -> nn.Sequential:
    """Two units in one Sequential, with no class of their own."""
    return nn.Sequential(*unit(spec, stage, inputs, outputs), *unit(spec, stage, outputs, outputs))


def sequentials(spec: LayerSpec, stage: StageSpec, inputs: int) -> list[nn.Module]:
    """Plain Sequentials one after the other; the first is the transition."""
    c = stage.channels
    return [transition(spec, stage, inputs), *(double(spec, stage, c, c)
            for _ in range(stage.depth))]  # fmt: skip


def build_stage(
    spec: LayerSpec, stage: StageSpec, inputs: int, guides: int = 0
) -> tuple[nn.Module, int]:
    """The stage and the channels that it returns; `guides` is how many a second image has."""
    c = stage.channels
    if stage.kind in CONDITIONED:
        return ConditionedStage(spec, stage, inputs, guides), c
    if stage.style == "steps":
        return Steps(spec, stage, inputs), c
    if stage.style == "units":
        return nn.ModuleList(sequentials(spec, stage, inputs)), c
    if stage.style == "layers":
        layers = [layer for part in sequentials(spec, stage, inputs) for layer in part]
        return nn.ModuleList(layers), c
    if stage.style == "joining":
        body = JoiningSequential(*(unit(spec, stage, c, c) for _ in range(stage.depth)))
        return nn.Sequential(transition(spec, stage, inputs), body), c
    if stage.style == "inline":
        return nn.Sequential(transition(spec, stage, inputs), InlineStage(spec, stage)), c
    if stage.style == "gathering":
        members = [unit(spec, stage, c + 4 * i, 4) for i in range(stage.depth)]
        body = GatheringStage(members)
        return nn.Sequential(transition(spec, stage, inputs), body), c + 4 * stage.depth
    if stage.style in ("shared", "halved") and stage.kind != "dense":
        block = KINDS[stage.kind](spec, stage, c, 1)
        first = transition(spec, stage, inputs)
        if stage.style == "halved":
            return HalvedStage(first, block, stage.depth, spec.dims), c
        return SharedStage(first, block, stage.depth), c
    members = blocks(spec, stage, inputs)
    outputs = members[-1].out_channels
    if stage.style == "loop":
        return nn.ModuleList(members), outputs
    if stage.style == "module":
        return LoopStage(members), outputs
    return nn.Sequential(*members), outputs
