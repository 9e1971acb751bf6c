"""Convolutions of one value with one geometry: one backward pass for all of them.

conv1 of a block and Conv1x1 of the block before read the same x. Apart, each makes a gradient as
large as x, and the two are added up; together they make one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlawrap._torch import is_recorded, is_transformed
from rlawrap.splice.pointwise import is_point, point_conv, point_dilation


class Geometry(NamedTuple):
    """What convolutions have in common beside the size of their windows."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


_CONVS: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)


def joint_convs(
    x: Tensor, weights: list[Tensor], geometry: Geometry, ours: tuple[bool, ...]
) -> tuple[Tensor, ...]:
    """What convolutions without bias and groups make of x; all have one window and one geometry.

    ours: which of them are h's. Their gradients, of any order, are those of the single ones up to
    rounding.
    """
    watched = is_recorded(x) or is_transformed(x, *weights)
    # On other devices this was not measured; under autocast each casts for itself, and once.
    elsewhere = watched or x.device.type != "cpu" or torch.is_autocast_enabled("cpu")
    learning = not elsewhere and torch.is_grad_enabled() and x.requires_grad
    if learning and all(w.requires_grad and w.dtype == x.dtype for w in weights):
        return _JointConvs.apply(x, geometry, ours, *weights)  # type: ignore[no-any-return,no-untyped-call]
    return _each(x, weights, geometry, ours)


def _each(
    x: Tensor, weights: Any, geometry: Geometry, ours: tuple[bool, ...]
) -> tuple[Tensor, ...]:
    """The base's as it calls them, h's by what is faster for them."""
    conv, point = _CONVS[weights[0].dim() - 3], _are_points(weights[0], geometry)
    return tuple(
        point_conv(x, weight) if point and own else conv(x, weight, None, *geometry)
        for weight, own in zip(weights, ours, strict=True)
    )


def _are_points(weight: Tensor, geometry: Geometry) -> bool:
    return weight.dim() == 4 and is_point(weight.shape[2:], *geometry)


class _JointConvs(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, geometry: Geometry, ours: tuple[bool, ...], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        return _each(x, weights, geometry, ours)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.geometry, _, *weights = inputs
        ctx.save_for_backward(x, *weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, *weights = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        if _are_points(weights[0], geometry):
            geometry = geometry._replace(dilation=(point_dilation(x, weights, learning=True),) * 2)
        of_x, of_weights, _ = torch.ops.aten.convolution_backward(
            torch.cat(grads, 1), x, torch.cat(weights), None, *geometry,
            False, [0] * (x.dim() - 2), 1, [True, True, False],
        )  # fmt: skip
        return of_x, None, None, *of_weights.split([len(w) for w in weights])
