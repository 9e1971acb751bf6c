"""A stand-in for mmcv's compiled operators, on torchvision's: `nms` and RoIAlign, for CPUs.

mmcv-lite has the Python side of `mmcv.ops` and not the compiled module `mmcv._ext` behind it. The
calls are those of mmcv 2.1's `ops/nms.py` and `ops/roi_align.py`; every other operator is there, so
that mmcv can be imported, and says its name when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torchvision import ops


def nms(bboxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes kept, best first; with offset 1 a box ends behind its last pixel."""
    ends = bboxes.new_tensor([0, 0, offset, offset])
    return ops.nms(bboxes + ends, scores, iou_threshold)


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **how: Any
) -> None:
    """Write the regions' features into `output`."""
    output.copy_(_roi_align(input, rois, **how))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **how: Any,
) -> None:
    """Write the gradient of the features into `grad_input`; the operator is linear in them."""
    with torch.enable_grad():
        features = torch.zeros_like(grad_input, requires_grad=True)
        _roi_align(features, rois, **how).backward(grad_output)
    grad_input.copy_(features.grad)


def _roi_align(
    features: Tensor,
    rois: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> Tensor:
    if pool_mode != 1:
        raise NotImplementedError("the stand-in's RoIAlign averages; torchvision has no maximum.")
    size = (aligned_height, aligned_width)
    return ops.roi_align(features, rois, size, spatial_scale, sampling_ratio, aligned)


class _Operators(ModuleType):
    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(f"mmcv's operator {name} is not in the tests' stand-in.")

        return missing


def install() -> None:
    """Put the stand-in in the place of `mmcv._ext`; before anything imports `mmcv.ops`."""
    module = _Operators("mmcv._ext")
    # Without a loader mmcv takes it for what it is when it tells how it was compiled: it was not.
    module.__spec__ = ModuleSpec("mmcv._ext", None)
    for function in (nms, roi_align_forward, roi_align_backward):
        setattr(module, function.__name__, function)
    sys.modules["mmcv._ext"] = module
