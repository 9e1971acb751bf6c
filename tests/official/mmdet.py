"""Checkpoints of MMDetection's detectors made from their names and shapes by the reference's rule.

The names and shapes of necks and heads are those of MMDetection's configurations of the paper's
detectors with an FPN: `width` channels, `hidden` features in the box head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import rlawrap
from tests.official.golden import filled

KINDS = ("Faster R-CNN", "Mask R-CNN", "RetinaNet")
WIDTHS = (256, 512, 1024, 2048)


def shapes(
    kind: str, classes: int, width: int = 8, hidden: int = 16, stacked: int = 4
) -> dict[str, list[int]]:
    """Names and shapes of neck and heads, the same in MMDetection 2.x and 3.x, in their order."""
    layers: dict[str, list[int]] = {}
    inputs = WIDTHS[1:] if kind == "RetinaNet" else WIDTHS
    for n, channels in enumerate(inputs):
        layers[f"neck.lateral_convs.{n}.conv"] = [width, channels, 1, 1]
    for n in range(len(inputs)):
        layers[f"neck.fpn_convs.{n}.conv"] = [width, width, 3, 3]
    if kind == "RetinaNet":
        layers["neck.fpn_convs.3.conv"] = [width, WIDTHS[-1], 3, 3]
        layers["neck.fpn_convs.4.conv"] = [width, width, 3, 3]
        for name in ("cls_convs", "reg_convs"):
            for n in range(stacked):
                layers[f"bbox_head.{name}.{n}.conv"] = [width, width, 3, 3]
        layers["bbox_head.retina_cls"] = [9 * classes, width, 3, 3]
        layers["bbox_head.retina_reg"] = [9 * 4, width, 3, 3]
    else:
        layers["rpn_head.rpn_conv"] = [width, width, 3, 3]
        layers["rpn_head.rpn_cls"] = [3, width, 1, 1]
        layers["rpn_head.rpn_reg"] = [12, width, 1, 1]
        layers["roi_head.bbox_head.fc_cls"] = [classes + 1, hidden]
        layers["roi_head.bbox_head.fc_reg"] = [4 * classes, hidden]
        layers["roi_head.bbox_head.shared_fcs.0"] = [hidden, width * 7 * 7]
        layers["roi_head.bbox_head.shared_fcs.1"] = [hidden, hidden]
    if kind == "Mask R-CNN":
        for n in range(stacked):
            layers[f"roi_head.mask_head.convs.{n}.conv"] = [width, width, 3, 3]
        layers["roi_head.mask_head.upsample"] = [width, width, 2, 2]
        layers["roi_head.mask_head.conv_logits"] = [classes, width, 1, 1]
    made = {}
    for layer, shape in layers.items():
        made[f"{layer}.weight"] = shape
        # An upsampling layer counts its outputs second; both are the same here.
        made[f"{layer}.bias"] = shape[:1]
    return made


def heads(kind: str, classes: int, **options: int) -> dict[str, Tensor]:
    """Neck and heads, filled by the rule."""
    wanted = shapes(kind, classes, **options)
    empty = {key: torch.empty(shape, device="meta") for key, shape in wanted.items()}
    return {key: value.float() for key, value in filled(empty).items()}


def checkpoint(body: nn.Module, kind: str, classes: int = 5, **options: int) -> dict[str, Any]:
    """A file's content as MMDetection 2.x writes it, around an official backbone's tensors."""
    official = filled(rlawrap.official_state_dict(body))
    state = {
        f"backbone.{key}": value.float() if value.is_floating_point() else value
        for key, value in official.items()
    }
    names = tuple(f"class {n}" for n in range(classes))
    meta = {"mmdet_version": "2.4.0", "epoch": 12, "CLASSES": names, "config": "model = dict()"}
    return {"meta": meta, "state_dict": state | heads(kind, classes, **options), "optimizer": {}}
