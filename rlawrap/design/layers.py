"""Small parameter-free layers on the hidden state's way; torch functions only, so they retrace."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlawrap._torch import clear_hooks
from rlawrap.flow.geometry import Crop, Pad, Pool, Step
from rlawrap.flow.windows import Window

CONVS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: Elementwise, and the same wherever they are applied.
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LeakyReLU,
    nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Softplus, nn.Softsign, nn.Tanh, nn.Sigmoid,
    nn.LogSigmoid,
)  # fmt: skip


class ChannelsLast(nn.Module):
    """(N, C, …) -> (N, …, C)."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.order = (0, *range(2, dims + 2), 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(*self.order)


class ChannelsFirst(nn.Module):
    """(N, …, C) -> (N, C, …)."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.order = (0, dims + 1, *range(1, dims + 1))

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(*self.order)


class PadSides(nn.Module):
    """Padding of the spatial axes; `sides` and `mode` as `torch.nn.functional.pad` takes them."""

    def __init__(self, sides: tuple[int, ...], mode: str = "constant") -> None:
        super().__init__()
        self.sides, self.mode = sides, mode

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.sides, self.mode)

    def extra_repr(self) -> str:
        return f"{self.sides}, {self.mode}"


class Slice(nn.Module):
    """A slice of the spatial axes: (start, stop) of each."""

    def __init__(self, slices: tuple[tuple[int | None, int | None], ...]) -> None:
        super().__init__()
        self.slices = slices

    def forward(self, x: Tensor) -> Tensor:
        return x[(slice(None), slice(None), *(slice(*part) for part in self.slices))]

    def extra_repr(self) -> str:
        return f"{self.slices}"


class Reader(nn.Module):
    """A layer that is called with h and something that the main path computes."""


class PadBy(Reader):
    """Padding of h by amounts that the network computes."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, h: Tensor, sides: Any) -> Tensor:
        return F.pad(h, sides, self.mode)

    def extra_repr(self) -> str:
        return self.mode


class SliceBy(Reader):
    """A slice of h whose bounds the network computes."""

    def forward(self, h: Tensor, slices: Any) -> Tensor:
        return h[(slice(None), slice(None), *slices)]


class Row(nn.Sequential):
    """Layers in a row; each that is a `Reader` gets the next of `others`."""

    def forward(self, h: Tensor, *others: Any) -> Tensor:
        rest = iter(others)
        for layer in self:
            h = layer(h, next(rest)) if isinstance(layer, Reader) else layer(h)
        return h


class CeilPool3d(nn.Module):
    """An average pool of kernel = stride over volumes, rounding sizes up.

    `torch.nn.AvgPool3d` refuses an axis shorter than its kernel, such as the one frame left of a
    short clip; the two-dimensional pool does not. The average is taken over height and width
    first, then over time, which is the same.
    """

    def __init__(self, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        time, height, width = self.stride
        channels, frames = x.shape[1], x.shape[2]
        x = F.avg_pool2d(
            x.flatten(1, 2), (height, width), ceil_mode=True, count_include_pad=False
        ).unflatten(1, (channels, frames))
        sides = (x.shape[3], x.shape[4])
        x = F.avg_pool2d(x.flatten(3, 4), (time, 1), ceil_mode=True, count_include_pad=False)
        return x.unflatten(3, sides)

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class Resize(Reader):
    """h at the spatial size of another tensor, nearest neighbour."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, h: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(h, size=[like.shape[i] for i in self.axes], mode="nearest")


class Reduce(nn.Module):
    """A mean or maximum over some axes."""

    def __init__(self, name: str, dims: Any, keepdim: bool) -> None:
        super().__init__()
        self.name, self.dims, self.keepdim = name, dims, keepdim

    def forward(self, x: Tensor) -> Tensor:
        return getattr(torch, self.name)(x, dim=self.dims, keepdim=self.keepdim)


class Rows(nn.Module):
    """Rows of channels, as `x.view(-1, channels)` has them: one for each pixel that is left."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[1])


class Method(nn.Module):
    """A tensor method or function with fixed arguments, such as squeeze or permute."""

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.name, self.args, self.kwargs = name, args, kwargs

    def forward(self, x: Tensor) -> Tensor:
        if self.name == "getitem":
            return x[self.args[0]]
        return getattr(x, self.name)(*self.args, **self.kwargs)

    def extra_repr(self) -> str:
        return f"{self.name}, {self.args}"


class Function(nn.Module):
    """A function of `torch.nn.functional` with fixed arguments, such as max_pool2d."""

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.name, self.args, self.kwargs = name, args, kwargs

    def forward(self, x: Tensor) -> Tensor:
        function = getattr(F, self.name, None) or getattr(torch, self.name)
        return function(x, *self.args, **self.kwargs)

    def extra_repr(self) -> str:
        return f"{self.name}, {self.args}"


class SameConv(nn.Module):
    """A convolution padded as TensorFlow's SAME does: ceil(n / stride) pixels, odd one behind."""

    def __init__(self, inputs: int, outputs: int, window: Window, groups: int = 1) -> None:
        super().__init__()
        self.conv = conv_layer(inputs, outputs, window, groups=groups, padding=False)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        sides: list[Any] = []
        for axis in reversed(range(len(self.window.kernel))):
            n, s = x.shape[axis + 2], self.window.stride[axis]
            span = self.window.dilation[axis] * (self.window.kernel[axis] - 1) + 1
            # Never negative while span >= stride, which `conv_for` sees to.
            total = ((n + s - 1) // s - 1) * s + span - n
            sides += [total // 2, total - total // 2]
        return self.conv(F.pad(x, sides))


def conv_layer(
    inputs: int, outputs: int, window: Window, *, groups: int = 1, padding: bool = True
) -> nn.Module:
    """A convolution without bias that has a given window."""
    cls: Any = CONVS[len(window.kernel) - 1]
    zeros = (0,) * len(window.kernel)
    return cls(
        inputs,
        outputs,
        window.kernel,  # type: ignore[arg-type]
        stride=window.stride,  # type: ignore[arg-type]
        padding=window.padding if padding else zeros,  # type: ignore[arg-type]
        dilation=window.dilation,  # type: ignore[arg-type]
        groups=groups,
        bias=False,
    )


def step_layers(steps: list[Step]) -> list[nn.Module]:
    """Pooling, padding and slicing layers for the steps of a route (resizing is made elsewhere)."""
    layers: list[nn.Module] = []
    for step in steps:
        if isinstance(step, Pool):
            w = step.window
            if len(w.kernel) == 3 and w.ceil_mode and w.kernel == w.stride and not any(w.padding):
                layers.append(CeilPool3d(w.stride))
                continue
            cls = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[len(w.kernel) - 1]
            layers.append(
                cls(
                    w.kernel,  # type: ignore[arg-type]
                    w.stride,  # type: ignore[arg-type]
                    w.padding,  # type: ignore[arg-type]
                    ceil_mode=w.ceil_mode,
                    count_include_pad=False,
                )
            )
        elif isinstance(step, Pad):
            flat = tuple(n for side in reversed(step.sides) for n in side)
            layers.append(PadSides(flat, step.mode))
        elif isinstance(step, Crop):
            layers.append(Slice(step.slices))
    return layers


def fresh_activation(module: nn.Module) -> nn.Module:
    """A copy of an activation that keeps its input and shares nothing with the original."""
    if isinstance(module, nn.PReLU):
        return nn.PReLU()
    twin = copy.deepcopy(module)
    for part in twin.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]
        clear_hooks(part, before=True)
    return twin


_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "gelu": nn.GELU, "silu": nn.SiLU, "swish": nn.SiLU,
    "hardswish": nn.Hardswish, "hardsigmoid": nn.Hardsigmoid, "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU, "selu": nn.SELU, "celu": nn.CELU, "mish": nn.Mish, "softplus": nn.Softplus,
    "softsign": nn.Softsign, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "hardtanh": nn.Hardtanh,
    "logsigmoid": nn.LogSigmoid, "prelu": nn.PReLU,
}  # fmt: skip


def named_activation(
    name: str, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> nn.Module | None:
    """The activation that a function of x and these arguments is; None for one that is not known.

    PReLU's slope is a weight: h gets one of its own.
    """
    name = name.removesuffix("_")
    settings = {key: value for key, value in (kwargs or {}).items() if key != "inplace"}
    if name == "prelu" or (name in _ACTIVATIONS and not args and not settings):
        return _ACTIVATIONS[name]()
    if not (hasattr(F, name) or hasattr(torch, name)):
        return None
    return Function(name, args, settings)
