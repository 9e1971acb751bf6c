"""Convolutions of one value with one geometry: one backward pass for all of them.

conv1 of a block and Conv1x1 of the block before read the same x. Apart, each makes a gradient as
large as x, and the two are added up; together they make one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlawrap._torch import is_recorded, is_transformed

#: stride, padding, dilation
Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
_CONVS: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)


def joint_convs(x: Tensor, weights: list[Tensor], geometry: Geometry) -> tuple[Tensor, ...]:
    """What convolutions without bias and groups make of x; all have one window and one geometry.

    Their gradients, of any order, are those of the single ones up to rounding.
    """
    watched = is_recorded(x) or is_transformed(x, *weights)
    # On other devices this was not measured; under autocast each casts for itself, and once.
    elsewhere = watched or x.device.type != "cpu" or torch.is_autocast_enabled("cpu")
    learning = not elsewhere and torch.is_grad_enabled() and x.requires_grad
    if learning and all(w.requires_grad and w.dtype == x.dtype for w in weights):
        return _JointConvs.apply(x, geometry, *weights)  # type: ignore[no-any-return,no-untyped-call]
    return _each(x, weights, geometry)


def _each(x: Tensor, weights: Any, geometry: Geometry) -> tuple[Tensor, ...]:
    conv = _CONVS[weights[0].dim() - 3]
    return tuple(conv(x, weight, None, *geometry) for weight in weights)


class _JointConvs(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, geometry: Geometry, *weights: Tensor) -> tuple[Tensor, ...]:
        return _each(x, weights, geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.geometry, *weights = inputs
        ctx.save_for_backward(x, *weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, *weights = ctx.saved_tensors
        of_x, of_weights, _ = torch.ops.aten.convolution_backward(
            torch.cat(grads, 1), x, torch.cat(weights), None, *ctx.geometry,
            False, [0] * (x.dim() - 2), 1, [True, True, False],
        )  # fmt: skip
        return of_x, None, *of_weights.split([len(w) for w in weights])
