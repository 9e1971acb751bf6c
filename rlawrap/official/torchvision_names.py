"""MMDetection's necks and heads under torchvision's names, class by class and row by row.

torchvision counts classes from 1, with the background as 0; MMDetection counts them from 0, with
the background behind the last where there is one. Anchors stand in the same order in both: by
ratio of the sides, then by size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from rlawrap.errors import CheckpointError
from rlawrap.official.detectors import Detector

#: The logit of RetinaNet's class 0, which no image has: a score of 0, and nothing to learn from.
NO_CLASS = -100.0

_FPN = {
    r"neck\.lateral_convs\.(\d+)\.conv": r"backbone.fpn.inner_blocks.\1.0",
    r"neck\.fpn_convs\.(\d+)\.conv": r"backbone.fpn.layer_blocks.\1.0",
}
_TWO_STAGES = {
    r"rpn_head\.rpn_conv": "rpn.head.conv.0.0",
    r"rpn_head\.rpn_cls": "rpn.head.cls_logits",
    r"rpn_head\.rpn_reg": "rpn.head.bbox_pred",
    r"roi_head\.bbox_head\.shared_fcs\.0": "roi_heads.box_head.fc6",
    r"roi_head\.bbox_head\.shared_fcs\.1": "roi_heads.box_head.fc7",
    r"roi_head\.bbox_head\.fc_cls": "roi_heads.box_predictor.cls_score",
    r"roi_head\.bbox_head\.fc_reg": "roi_heads.box_predictor.bbox_pred",
    r"roi_head\.mask_head\.convs\.(\d+)\.conv": r"roi_heads.mask_head.\1.0",
    r"roi_head\.mask_head\.upsample": "roi_heads.mask_predictor.conv5_mask",
    r"roi_head\.mask_head\.conv_logits": "roi_heads.mask_predictor.mask_fcn_logits",
}
_RETINA = {
    r"bbox_head\.cls_convs\.(\d+)\.conv": r"head.classification_head.conv.\1.0",
    r"bbox_head\.reg_convs\.(\d+)\.conv": r"head.regression_head.conv.\1.0",
    r"bbox_head\.retina_cls": "head.classification_head.cls_logits",
    r"bbox_head\.retina_reg": "head.regression_head.bbox_reg",
}

_KINDS = {"Faster R-CNN": "fasterrcnn", "Mask R-CNN": "maskrcnn", "RetinaNet": "retinanet"}

_EVERYWHERE = (
    "torchvision rounds the corners of its anchors to whole pixels, MMDetection does not, so boxes "
    "shift a little"
)
#: What a converted detector computes otherwise in torchvision.
DIFFERENCES = {
    "Faster R-CNN": (
        _EVERYWHERE,
        "torchvision pools regions half a pixel aside (RoIAlign with aligned=False, two samples a "
        "bin; MMDetection: aligned=True, as many as fit), so scores and boxes differ a little",
    ),
    "RetinaNet": (
        _EVERYWHERE,
        "torchvision has a ReLU before the convolution that makes P7, MMDetection has none",
    ),
}


def to_torchvision(detector: Detector, body: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of torchvision's detector for `detector.classes + 1` classes.

    `body` are the tensors of our backbone, which become `backbone.body.*`. Raises `CheckpointError`
    for a detector that torchvision's could not be built as.
    """
    _refuse_misfits(detector)
    layers = {**_FPN, **(_RETINA if detector.kind == "RetinaNet" else _TWO_STAGES)}
    if detector.kind == "RetinaNet":
        extra = detector.count("neck.lateral_convs")
        layers = {
            rf"neck\.fpn_convs\.{extra}\.conv": "backbone.fpn.extra_blocks.p6",
            rf"neck\.fpn_convs\.{extra + 1}\.conv": "backbone.fpn.extra_blocks.p7",
            **layers,
        }
    made = {f"backbone.body.{key}": value for key, value in body.items()}
    for key, value in detector.parts.items():
        layer, _, tensor = key.rpartition(".")
        pattern = next(p for p in layers if re.fullmatch(p, layer))
        made[f"{re.sub(pattern, layers[pattern], layer)}.{tensor}"] = _rows(detector, key, value)
    return made


def differences(detector: Detector) -> tuple[str, ...]:
    """What torchvision computes otherwise than MMDetection with the same weights."""
    return DIFFERENCES["RetinaNet" if detector.kind == "RetinaNet" else "Faster R-CNN"]


def detector_call(detector: Detector, network: str) -> str:
    """The call that builds the detector for these weights around the network of that call.

    Empty where its heads have other widths than torchvision's.
    """
    parts = detector.parts
    width = len(parts["neck.lateral_convs.0.conv.weight"])
    options = [f"num_classes={detector.classes + 1}"]
    if detector.kind == "RetinaNet":
        as_usual = detector.count("bbox_head.cls_convs") == 4
        p6 = parts[f"neck.fpn_convs.{detector.count('neck.lateral_convs')}.conv.weight"]
        if p6.shape[0] == p6.shape[1]:
            blocks = "torchvision.ops.feature_pyramid_network.LastLevelP6P7"
            options.append(f"extra_blocks={blocks}({width}, {width})")
    else:
        as_usual = len(parts["roi_head.bbox_head.fc_cls.weight"][0]) == 1024
    if detector.kind == "Mask R-CNN":
        as_usual = as_usual and detector.count("roi_head.mask_head.convs") == 4
    if not as_usual or width != 256:
        return ""
    return f"rlawrap.detection.detector({_KINDS[detector.kind]!r}, {network}, {', '.join(options)})"


def _rows(detector: Detector, key: str, value: Tensor) -> Tensor:
    """The rows of a last layer in torchvision's order of classes; any other tensor as it is."""
    layer = key.rpartition(".")[0].rpartition(".")[2]
    if layer == "fc_cls":  # background last -> first
        return value.roll(1, dims=0)
    if layer == "fc_reg":  # four rows a class, none of them for the background
        return torch.cat([torch.zeros_like(value[:4]), value])
    if layer == "conv_logits":
        return torch.cat([torch.zeros_like(value[:1]), value])
    if layer == "retina_cls":  # the classes of one anchor, then those of the next
        by_anchor = value.unflatten(0, (detector.anchors, detector.classes))
        fill = NO_CLASS if value.dim() == 1 else 0.0
        return torch.cat([torch.full_like(by_anchor[:, :1], fill), by_anchor], 1).flatten(0, 1)
    return value.clone()


def _refuse_misfits(detector: Detector) -> None:
    problems = list(_misfits(detector))
    if problems:
        listed = "; ".join(problems)
        raise CheckpointError(
            f"{detector.where}: torchvision has no such {detector.kind}: {listed}. "
            "MMDetection 3.x has: convert it with `--to mmdet3`."
        )


def _misfits(detector: Detector) -> Iterator[str]:
    """Why torchvision's detector could not be built as this one."""
    laterals, outputs = (detector.count(f"neck.{name}") for name in ("lateral_convs", "fpn_convs"))
    if detector.kind != "RetinaNet":
        if outputs != laterals:
            yield f"{outputs - laterals} levels of its pyramid are made by further convolutions"
        if detector.count("roi_head.bbox_head.shared_fcs") != 2:
            count = detector.count("roi_head.bbox_head.shared_fcs")
            yield f"its box head has {count} layers in front of the last, not 2"
        return
    if outputs != laterals + 2:
        yield f"its pyramid has {outputs - laterals} further levels, not P6 and P7"
        return
    p6 = detector.parts[f"neck.fpn_convs.{laterals}.conv.weight"].shape
    config = str(detector.meta.get("config", ""))
    # Of equal inputs and outputs, the source of P6 cannot be told by its shape.
    if p6[0] == p6[1] and not re.search(r"add_extra_convs['\"]?\s*[=:]\s*['\"]on_output", config):
        yield "P6 reads the pyramid, and whether before or behind its last convolution is not told"
