"""Blocks that another path scales and shifts: FiLM, SPADE, conditional norms, gates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz import layers as L
from tests.fuzz.blocks import Block
from tests.fuzz.spec import LayerSpec, StageSpec

#: Channels of the path that conditions.
GUIDE = 4


class Conditioned(Block):
    """A residual block whose branch a guide modulates behind its norm."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, stride: int) -> None:
        super().__init__(spec, stage, inputs, stride)
        c = stage.channels
        self.conv1 = L.conv(spec, inputs, c, stage.kernel, stride=stride, groups=stage.groups)
        self.norm, self.act = L.norm(spec, c), L.act(spec)
        self.conv2 = L.conv(spec, c, c, 3)
        self.axes = tuple(range(2, spec.dims + 2))
        self.condition(spec, c)

    def condition(self, spec: LayerSpec, channels: int) -> None:
        """Make what reads the guide."""
        raise NotImplementedError

    def modulated(self, y: Tensor, guide: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        y = self.modulated(self.norm(self.conv1(x)), guide)
        return self.finish(x, self.conv2(self.act(y)))


class Film(Conditioned):
    """One scale and one shift for each channel, of a vector."""

    def condition(self, spec: LayerSpec, channels: int) -> None:
        self.film = nn.Linear(GUIDE, 2 * channels)

    def modulated(self, y: Tensor, guide: Tensor) -> Tensor:
        both = self.film(guide.mean(self.axes))
        for _ in self.axes:
            both = both.unsqueeze(-1)
        scale, shift = both.chunk(2, dim=1)
        return y * (1 + scale) + shift


class Spade(Conditioned):
    """A scale and a shift for each pixel, convolved out of the guide in the image's size."""

    def condition(self, spec: LayerSpec, channels: int) -> None:
        self.shared = L.conv(spec, GUIDE, GUIDE, 3)
        self.gamma, self.beta = (L.conv(spec, GUIDE, channels, 3) for _ in range(2))

    def modulated(self, y: Tensor, guide: Tensor) -> Tensor:
        guide = F.relu(self.shared(F.interpolate(guide, size=y.shape[2:])))
        return y * (1 + self.gamma(guide)) + self.beta(guide)


class ConditionalNorm(Conditioned):
    """The weight and bias of the norm are computed."""

    def condition(self, spec: LayerSpec, channels: int) -> None:
        self.scale_of, self.shift_of = nn.Linear(GUIDE, channels), nn.Linear(GUIDE, channels)

    def modulated(self, y: Tensor, guide: Tensor) -> Tensor:
        vector, shape = guide.mean(self.axes), (y.shape[0], -1, *(1 for _ in self.axes))
        return torch.addcmul(
            self.shift_of(vector).view(shape), y, 1 + self.scale_of(vector).view(shape)
        )


class Gated(Conditioned):
    """A gate for each pixel that the guide opens (attention U-Nets)."""

    def condition(self, spec: LayerSpec, channels: int) -> None:
        self.look, self.see = L.conv(spec, GUIDE, 4), L.conv(spec, channels, 4)
        self.score = L.conv(spec, 4, 1)

    def modulated(self, y: Tensor, guide: Tensor) -> Tensor:
        guide = F.interpolate(guide, size=y.shape[2:])
        return y * torch.sigmoid(self.score(F.relu(self.look(guide) + self.see(y))))


CONDITIONED: dict[str, type[Conditioned]] = {
    "film": Film, "spade": Spade, "conditional_norm": ConditionalNorm, "gated": Gated,
}  # fmt: skip


class ConditionedStage(nn.Module):
    """Its blocks read a guide: a second input of the network, or a path beside them."""

    def __init__(self, spec: LayerSpec, stage: StageSpec, inputs: int, guides: int) -> None:
        super().__init__()
        self.look = nn.Sequential(L.conv(spec, guides or inputs, GUIDE, 3, stride=2), nn.Tanh())
        self.of_image = not guides
        kind, channels = CONDITIONED[stage.kind], inputs
        self.blocks = nn.ModuleList()
        for i in range(stage.depth):
            self.blocks.append(kind(spec, stage, channels, stage.stride if i == 0 else 1))
            channels = stage.channels

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        guide = self.look(x if self.of_image else guide)
        for block in self.blocks:
            x = block(x, guide)
        return x
