"""The layers that fusing knows: convolutions, norms with fixed statistics, and what follows scale.

A layer with hooks or parametrizations of its own is none of them: what is attached to it would see
other values, or undo what was folded into it.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized

from rlawrap._torch import has_forward_hooks
from rlawrap.design.layers import ACTIVATIONS, CONVS, PadSides, SameConv, Slice
from rlawrap.splice.pointwise import point_conv

NORMS: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
)  # fmt: skip
POOLS: tuple[type[nn.Module], ...] = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
#: What a scale above zero passes through, too.
MONOTONE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.LeakyReLU, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
)  # fmt: skip
DROPOUTS: tuple[type[nn.Module], ...] = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
ADDS = (operator.add, torch.add)


class HalfTanh(nn.Module):
    """tanh(z / 2) / 2, as sigmoid(z) - 1/2, which vector units compute several times faster.

    inplace: where no gradients are asked for, z is overwritten.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, z: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return torch.sigmoid(z) - 0.5  # sigmoid's backward reads its result
        return (z.sigmoid_() if self.inplace else torch.sigmoid(z)).sub_(0.5)


class PointConv2d(nn.Conv2d):
    """nn.Conv2d of h with a 1x1 window, which a CPU gives to the library that is faster for it."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> PointConv2d:
        """With the tensors of another."""
        made = cls(conv.in_channels, conv.out_channels, 1, device="meta")
        made.weight, made.bias = conv.weight, conv.bias
        return made.train(conv.training)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return point_conv(input, weight, bias)


def is_plain(module: nn.Module) -> bool:
    """Whether nothing is attached to a module that would notice a change of its weights."""
    return not (has_forward_hooks(module) or is_parametrized(module))


def _runs(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is one of these, with their `forward`, and plain."""
    return any(
        isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds
    ) and is_plain(module)


def conv_of(module: nn.Module | None) -> Any:
    """The convolution that a layer is, or that it has behind its padding; None for others."""
    if isinstance(module, SameConv) and is_plain(module):
        module = module.conv
    if _pads_itself(module):
        return module
    if module is None or not _runs(module, CONVS):
        return None
    if type(module)._conv_forward is not _class_of(module)._conv_forward:  # type: ignore[attr-defined]
        return None
    return module


def _pads_itself(module: nn.Module | None) -> bool:
    """Whether a layer is timm's convolution that pads as TensorFlow does, a class of its own."""
    own = type(module).__name__ == "Conv2dSame" and type(module).__module__.startswith("timm.")
    return own and module is not None and is_plain(module)


def _class_of(conv: nn.Module) -> type[nn.Module]:
    return next(kind for kind in CONVS if isinstance(conv, kind))


def is_unpadded(module: nn.Module) -> bool:
    """Whether a convolution reads nothing but its input's own values."""
    padding: Any = conv_of(module).padding
    hidden = isinstance(module, SameConv) or _pads_itself(module)
    return not hidden and (padding == "valid" or not any(padding))


def norm_of(module: nn.Module | None) -> Any:
    """The batch norm that a layer is, with fixed statistics; None for others."""
    if module is None or not _runs(module, NORMS):
        return None
    fixed = not module.training and getattr(module, "running_mean", None) is not None
    return module if fixed else None


def scaled_norm_of(module: nn.Module | None) -> Any:
    """The norm that a layer is, of a kind whose weights scale its results; None for others."""
    group = isinstance(module, nn.GroupNorm) and module.weight is not None and is_plain(module)
    return module if group else norm_of(module)


def affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift, in float64, that a batch norm with fixed statistics is."""
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def passes_scale(module: nn.Module | None) -> bool:
    """Whether a layer treats channels apart and linearly, so that a scale passes through it."""
    if module is None or not is_plain(module):
        return False
    if isinstance(module, PadSides):
        return module.mode in ("constant", "reflect", "replicate", "circular")
    return isinstance(module, Slice) or _runs(module, (*POOLS, nn.Identity))


def is_monotone(module: nn.Module | None) -> bool:
    """Whether a scale above zero passes through a layer: it picks or clips at zero."""
    if module is None or getattr(module, "inplace", False):
        return False
    return _runs(module, MONOTONE) and not getattr(module, "return_indices", False)


def passes_shift(module: nn.Module | None) -> bool:
    """Whether a constant, too, passes through it unchanged."""
    if module is None or not passes_scale(module) or isinstance(module, PadSides):
        return False
    padding: Any = getattr(module, "padding", 0)
    padded = any(padding) if isinstance(padding, tuple) else bool(padding)
    return not (padded and getattr(module, "count_include_pad", False))


def is_activation(module: nn.Module | None) -> bool:
    """Whether a layer is an elementwise activation without weights."""
    return module is not None and _runs(module, ACTIVATIONS)


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds two values of the graph."""
    return (
        node.op == "call_function"
        and node.target in ADDS
        and len(node.args) == 2
        and not node.kwargs
        and all(isinstance(a, fx.Node) for a in node.args)
    )


def is_zero_pad(node: fx.Node) -> bool:
    """Whether a node pads with zeros by `torch.nn.functional.pad`."""
    if node.op != "call_function" or node.target is not F.pad:
        return False
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
    return bool(mode == "constant" and not value)
