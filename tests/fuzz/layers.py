"""The layers of random networks, each in the ways people write it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.fuzz.paddings import padded
from tests.fuzz.spec import LayerSpec


def per_dim(names: tuple[str, str, str], dims: int) -> Any:
    return getattr(nn, names[dims - 1])


def conv(
    spec: LayerSpec,
    inputs: int,
    outputs: int,
    kernel: int | Sequence[int] = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padding: Any = None,
) -> nn.Module:
    """A convolution that keeps the size (at stride 1) unless told its padding."""
    kernels = (kernel,) * spec.dims if isinstance(kernel, int) else tuple(kernel)
    apart = padding is None and spec.padding != "own" and max(kernels) > 1
    if apart:
        padding = 0
    if padding is None:
        padding = tuple(dilation * (n - 1) // 2 for n in kernels)
    cls = per_dim(("Conv1d", "Conv2d", "Conv3d"), spec.dims)
    layer = cls(
        inputs, outputs, kernels, stride=stride, dilation=dilation, groups=groups,
        padding=padding, bias=spec.bias, padding_mode=spec.padding_mode,
    )  # fmt: skip
    layer = NORMED[spec.weight_norm](layer)
    return padded(spec, layer, kernels, stride, dilation) if apart else layer


def _hook_norm(layer: nn.Module) -> nn.Module:
    """`weight_norm` by a hook, which old code still has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


NORMED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda layer: layer,
    "parametrized": nn.utils.parametrizations.weight_norm,
    "hook": _hook_norm,
    "spectral": nn.utils.spectral_norm,
}


def norm(spec: LayerSpec, channels: int) -> nn.Module:
    if spec.norm == "none":
        return nn.Identity()
    if spec.norm == "group":
        return nn.GroupNorm(2, channels)
    if spec.norm == "instance":
        return per_dim(("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"), spec.dims)(
            channels, affine=True
        )
    return per_dim(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), spec.dims)(channels)


class FunctionalActivation(nn.Module):
    """An activation called as a function, in place where asked."""

    def __init__(self, name: str, inplace: bool) -> None:
        super().__init__()
        self.name = name
        self.arguments = {"inplace": True} if inplace and name not in ("gelu",) else {}

    def forward(self, x: Tensor) -> Tensor:
        return getattr(F, self.name)(x, **self.arguments)


def act(spec: LayerSpec) -> nn.Module:
    names = {
        "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "leaky_relu": nn.LeakyReLU,
        "hardswish": nn.Hardswish, "prelu": nn.PReLU, "elu": nn.ELU,
    }  # fmt: skip
    if spec.functional_act and spec.act != "prelu":
        return FunctionalActivation(spec.act, spec.inplace)
    if spec.act in ("gelu", "prelu"):
        return names[spec.act]()
    return names[spec.act](inplace=spec.inplace)


def join(how: str, x: Tensor, y: Tensor) -> Tensor:
    """x + y in one of the ways it is written; those in place change y."""
    if how == "plus":
        return x + y
    if how == "torch_add":
        return torch.add(y, x)
    if how == "add_":
        return y.add_(x)
    if how == "stacked":
        return torch.stack([x, y]).sum(0)
    if how == "lerp":
        return torch.lerp(x, y, 0.5)
    if how == "addcmul":
        return torch.addcmul(x, y, y.new_tensor(0.5))
    if how == "dropped":
        y.add_(x)
        return y
    if how == "assigned":
        out = torch.zeros_like(y)
        out[:, ::2] = x[:, ::2]
        out[:, 1::2] += x[:, 1::2]
        out[...] += y
        return out
    y += x
    return y


class SqueezeExcite(nn.Module):
    """x times a gate per channel (or per pixel)."""

    def __init__(self, spec: LayerSpec, channels: int, spatial: bool) -> None:
        super().__init__()
        self.axes = tuple(range(2, spec.dims + 2))
        self.spatial = spatial
        if spatial:
            self.score = conv(spec, channels, 1, 3)
        else:
            self.reduce = conv(spec, channels, 4)
            self.expand = conv(spec, 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.spatial:
            return x * torch.sigmoid(self.score(x))
        gate = x.mean(self.axes, keepdim=True)
        return torch.sigmoid(self.expand(F.relu(self.reduce(gate)))) * x


class FunctionalDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, self.training)


class DropPath(nn.Module):
    """Stochastic depth as it is often written: another graph in each mode."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.ones = (1,) * (dims + 1)

    def factor(self, x: Tensor) -> Tensor:
        return x.new_empty(x.shape[0], *self.ones).bernoulli_(0.7) / 0.7

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor(x) if self.training else x


class Noise(DropPath):
    """One random factor for each image, drawn by the size of the batch."""

    def factor(self, x: Tensor) -> Tensor:
        drawn = torch.rand(x.size(0), dtype=x.dtype, device=x.device) + 0.5
        return drawn.view(-1, *self.ones)


def drop(how: str, dims: int) -> nn.Module:
    if how == "dropout":
        return nn.Dropout(0.3)
    if how == "functional":
        return FunctionalDropout()
    if how == "path":
        return DropPath(dims)
    if how == "noise":
        return Noise(dims)
    if how == "stochastic_depth":
        return torchvision.ops.StochasticDepth(0.3, "row")
    return nn.Identity()


class Scale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels, *(1,) * dims), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
