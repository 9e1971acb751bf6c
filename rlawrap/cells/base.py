"""What every recurrent cell is: layers shared by a stage, layers of each block, and one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: What a cell is made of: layers, `nn.Parameter`s, and other tensors, which become buffers.
Part = nn.Module | Tensor
#: The same by name, as a step gets them: layers to call, and tensors.
Layers = Mapping[str, Any]
State = tuple[Tensor, ...]


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm that takes a single pixel of a single image as well, as the base may.

    A group of one value becomes its bias; `torch.nn.functional.group_norm` raises there.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def make_norm(kind: str, channels: int, dims: int) -> nn.Module:
    """A norm over `channels` of images with `dims` spatial axes; `kind` as in `RLAConfig.norm`."""
    if kind == "none":
        return nn.Identity()
    if kind == "group":
        # At least two channels each: a channel alone would lose its mean, as with "instance".
        groups = next(g for g in (8, 4, 2, 1) if channels % g == 0 and (g < channels or g == 1))
        return GroupNorm(groups, channels)
    if kind == "layer":
        return GroupNorm(1, channels)
    if kind == "instance":
        return GroupNorm(channels, channels)  # what InstanceNorm computes
    return (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](channels)


@dataclass(frozen=True)
class CellSpec:
    """What a cell is built for: hidden channels k, spatial axes, kernel, kind of norm, update."""

    k: int
    dims: int = 2
    kernel: int = 3
    norm: str = "batch"
    update: str = "pre"

    def conv(self, inputs: int, outputs: int, *, groups: int = 1, bias: bool = False) -> nn.Module:
        """A convolution that keeps the image size, with weights as published."""
        cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[self.dims - 1]
        made = cls(inputs, outputs, self.kernel, padding=self.kernel // 2, groups=groups, bias=bias)
        published_weights(made.weight)
        return made


def published_weights(weight: Tensor) -> None:
    """Kaiming-normal with fan out, as the official code draws the weights of convolutions."""
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


class Cell(ABC):
    """A recurrent cell; the rewrite calls its parts, it is no module itself.

    `step` receives the layers by name, u = Conv1x1(source) of shape (N, k, …) and the state, a
    tuple of `states` tensors of that shape, the first of which is h; it returns the next state.
    It must use torch functions alone, so that it can be traced. Layers, parameters and buffers keep
    the values that `shared` and `own` give them, with every `RLAConfig.init`.
    """

    #: How many tensors the state has.
    states = 1
    #: Whether `RLAConfig.update` chooses between forms of it.
    has_forms = False

    def __init__(self, spec: CellSpec) -> None:
        self.spec = spec

    @property
    def ends_active(self) -> bool:
        """Whether h has been through an activation when a step returns it, so that the classifier
        needs no norm and activation before it."""
        return self.has_forms and self.spec.update == "post"

    @abstractmethod
    def shared(self) -> Mapping[str, Part]:
        """New layers, parameters and buffers that the blocks of a stage share."""

    def own(self) -> Mapping[str, Part]:
        """New layers, parameters and buffers of one block: by default its norm."""
        return {"norm": make_norm(self.spec.norm, self.spec.k, self.spec.dims)}

    @abstractmethod
    def step(self, layers: Layers, u: Tensor, state: State) -> State:
        """The next state from u = Conv1x1(source) and the state before."""
