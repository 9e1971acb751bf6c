"""Checkpoints of whole detectors that the official code's MMDetection 2.x wrote.

Three detectors are known, those of the paper: Faster R-CNN, Mask R-CNN and RetinaNet, each with a
feature pyramid. A file of any other is refused, as is one of MMDetection 1.x, where classes and
the corners of boxes are counted another way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from rlawrap.errors import CheckpointError, few
from rlawrap.official.convert import DETECTOR_PARTS, Source, is_below_backbone
from rlawrap.weights import WRAPPERS, only_tensors, read_weights_file, state_dict_in

Kind = Literal["Faster R-CNN", "Mask R-CNN", "RetinaNet"]

_NECK = (r"neck\.lateral_convs\.\d+\.conv", r"neck\.fpn_convs\.\d+\.conv")
_TWO_STAGES = (
    *_NECK,
    r"rpn_head\.rpn_conv",
    r"rpn_head\.rpn_cls",
    r"rpn_head\.rpn_reg",
    r"roi_head\.bbox_head\.shared_fcs\.\d+",
    r"roi_head\.bbox_head\.fc_cls",
    r"roi_head\.bbox_head\.fc_reg",
)
#: The layers behind the backbone, each with a weight and a bias.
LAYERS: Mapping[Kind, tuple[str, ...]] = {
    "Faster R-CNN": _TWO_STAGES,
    "Mask R-CNN": (
        *_TWO_STAGES,
        r"roi_head\.mask_head\.convs\.\d+\.conv",
        r"roi_head\.mask_head\.upsample",
        r"roi_head\.mask_head\.conv_logits",
    ),
    "RetinaNet": (
        *_NECK,
        r"bbox_head\.cls_convs\.\d+\.conv",
        r"bbox_head\.reg_convs\.\d+\.conv",
        r"bbox_head\.retina_cls",
        r"bbox_head\.retina_reg",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector's checkpoint, read and checked.

    backbone: the backbone's tensors under the official keys. parts: neck and heads, as MMDetection
    names them. classes: without the background. anchors: of each place of a map. meta: what the
    file tells beside the tensors. averages: names of running averages, which are left out.
    """

    where: str
    kind: Kind
    classes: int
    anchors: int
    backbone: dict[str, Tensor]
    parts: dict[str, Tensor]
    meta: Mapping[str, Any]
    averages: tuple[str, ...] = ()

    def count(self, layers: str) -> int:
        """How many layers a list has, as "neck.fpn_convs"."""
        pattern = re.compile(rf"{re.escape(layers)}\.(\d+)\.")
        return len({found[1] for found in map(pattern.match, self.parts) if found})


def is_detector(state: Mapping[str, Any]) -> bool:
    """Whether a state dict has a backbone and more, as a whole detector's has.

    >>> is_detector({"backbone.conv1.weight": 1, "neck.lateral_convs.0.conv.bias": 2})
    True
    """
    return any(map(is_below_backbone, state)) and any(
        _bare(key).startswith(DETECTOR_PARTS) for key in state
    )


def read_detector(source: Source, num_classes: int | None = None) -> Detector:
    """The checkpoint of a whole detector, from a file or from what is in one.

    `num_classes` is what the detector is expected to have, without the background. Raises
    `CheckpointError` for a file that is no such detector, and tells what was found.
    """
    is_file = isinstance(source, (str, os.PathLike))
    where = str(source) if is_file else "the given checkpoint"
    loaded = read_weights_file(Path(source)) if is_file else source  # type: ignore[arg-type]
    meta = loaded.get("meta") if isinstance(loaded, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    tensors = {
        _bare(key): value
        for key, value in only_tensors(state_dict_in(loaded, where), where).items()
    }
    backbone = {
        key.removeprefix("backbone."): value
        for key, value in tensors.items()
        if key.startswith("backbone.")
    }
    averages = tuple(key for key in tensors if key.startswith("ema_"))
    parts = {
        key: value
        for key, value in tensors.items()
        if not key.startswith("backbone.") and key not in averages
    }
    _refuse_without_backbone(where, backbone, parts)
    _refuse_old(where, meta, parts)
    kind = _kind(where, parts)
    _refuse_other_layers(where, kind, parts)
    anchors, classes = _counted(where, kind, parts)
    _check_classes(where, classes, num_classes, meta)
    return Detector(
        where=where,
        kind=kind,
        classes=classes,
        anchors=anchors,
        backbone=backbone,
        parts=parts,
        meta=meta,
        averages=averages,
    )


def to_mmdet3(detector: Detector, body: Mapping[str, Tensor]) -> dict[str, Any]:
    """A checkpoint of MMDetection 3.x with our backbone, whose tensors are `body`.

    MMDetection 3.x has the neck and the heads of these detectors under the names of 2.x, with the
    classes in the same order and the background last.
    """
    state = {f"backbone.{key}": value for key, value in body.items()}
    classes = _class_names(detector.meta)
    meta = {"dataset_meta": {"classes": classes}} if classes else {}
    return {"meta": meta, "state_dict": {**state, **detector.parts}}


def _bare(key: str) -> str:
    """A name without the wrappers around the detector."""
    parts = key.split(".")
    while len(parts) > 1 and parts[0] in WRAPPERS and parts[0] != "backbone":
        parts.pop(0)
    return ".".join(parts)


def _class_names(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes as MMDetection 2.x tells them; none where it does not."""
    told = meta.get("CLASSES")
    return tuple(map(str, told)) if isinstance(told, (tuple, list)) else ()


def _refuse_without_backbone(
    where: str, backbone: Mapping[str, Tensor], parts: Mapping[str, Tensor]
) -> None:
    if not backbone:
        raise CheckpointError(
            f"{where}: no detector's checkpoint, as nothing in it is named backbone.*; it has "
            f"{few(list(parts), 3)}. A backbone or a classifier alone is read with "
            "`rlawrap.load_official(model, source)`."
        )
    if not parts:
        raise CheckpointError(
            f"{where}: a backbone alone, without a detector's neck and heads. Read it with "
            "`rlawrap.load_official(rlawrap.backbone(model), source)`."
        )


def _refuse_old(where: str, meta: Mapping[str, Any], parts: Mapping[str, Tensor]) -> None:
    """MMDetection 1.x told itself by its version, or by heads that stood outside roi_head."""
    version = meta.get("mmdet_version")
    told = isinstance(version, str) and version.partition(".")[0] in ("0", "1")
    outside = [
        k for k in parts if k.startswith(("bbox_head.fc_", "bbox_head.shared_", "mask_head."))
    ]
    if told or outside:
        why = f"version {version}" if told else f"{outside[0]} stands outside roi_head"
        raise CheckpointError(
            f"{where}: of MMDetection 1.x ({why}), where the background is class 0 and the corners "
            "of boxes are counted another way. Bring it to 2.x with MMDetection's own "
            "`python tools/model_converters/upgrade_model_version.py OLD NEW`."
        )


def _kind(where: str, parts: Mapping[str, Tensor]) -> Kind:
    if "bbox_head.retina_cls.weight" in parts:
        return "RetinaNet"
    if "roi_head.mask_head.conv_logits.weight" in parts:
        return "Mask R-CNN"
    if {"rpn_head.rpn_cls.weight", "roi_head.bbox_head.fc_cls.weight"} <= set(parts):
        return "Faster R-CNN"
    raise CheckpointError(_other_detector(where, list(parts)))


def _other_detector(where: str, names: list[str]) -> str:
    heads = [name for name in names if not name.startswith("neck.")] or names
    return (
        f"{where}: another detector than Faster R-CNN, Mask R-CNN and RetinaNet with an FPN: it "
        f"has {few(heads, 4)}. Its backbone alone is read with "
        "`rlawrap.load_official(rlawrap.backbone(model), source)`."
    )


def _refuse_other_layers(where: str, kind: Kind, parts: Mapping[str, Tensor]) -> None:
    """Names that are none of the detector's, and layers that lack a weight or a bias."""
    known = re.compile(rf"(?:{'|'.join(LAYERS[kind])})\.(?:weight|bias)")
    unknown = [key for key in parts if not known.fullmatch(key)]
    if unknown:
        raise CheckpointError(_other_detector(where, unknown))
    layers = dict.fromkeys(key.rpartition(".")[0] for key in parts)
    wanted = [f"{layer}.{name}" for layer in layers for name in ("weight", "bias")]
    missing = [key for key in wanted if key not in parts]
    missing += [
        f"{pattern}.weight".replace("\\", "").replace("d+", "0")
        for pattern in LAYERS[kind]
        if not any(re.fullmatch(pattern, layer) for layer in layers)
    ]
    if missing:
        listed = "\n  ".join(missing)
        raise CheckpointError(f"{where}: this {kind} lacks {len(missing)} tensors:\n  {listed}")


def _counted(where: str, kind: Kind, parts: Mapping[str, Tensor]) -> tuple[int, int]:
    """Anchors of a place and classes, from the rows of the last layers, which must agree."""

    def rows(layer: str) -> int:
        return len(parts[f"{layer}.weight"])

    if kind == "RetinaNet":
        anchors, scores = rows("bbox_head.retina_reg") // 4, rows("bbox_head.retina_cls")
        if not anchors or scores % anchors or rows("bbox_head.retina_reg") % 4:
            raise CheckpointError(
                f"{where}: bbox_head.retina_cls has {scores} rows and retina_reg "
                f"{rows('bbox_head.retina_reg')}, which are no classes and boxes of the same "
                "anchors. Give the file as MMDetection wrote it."
            )
        return anchors, scores // anchors
    anchors, classes = rows("rpn_head.rpn_cls"), rows("roi_head.bbox_head.fc_cls") - 1
    boxes = rows("roi_head.bbox_head.fc_reg")
    problems = []
    if rows("rpn_head.rpn_reg") != 4 * anchors:
        problems.append(
            f"rpn_head.rpn_cls has {anchors} rows and rpn_reg {rows('rpn_head.rpn_reg')}, so the "
            "RPN's is no sigmoid of one score an anchor; of a softmax over two, MMDetection 2.5 "
            "turned the order round"
        )
    if boxes != 4 * classes:
        problems.append(
            f"roi_head.bbox_head.fc_cls has {classes} classes and a background, fc_reg {boxes} "
            f"rows, not {4 * classes}"
        )
    if kind == "Mask R-CNN" and rows("roi_head.mask_head.conv_logits") != classes:
        problems.append(
            f"roi_head.mask_head.conv_logits has {rows('roi_head.mask_head.conv_logits')} rows, "
            f"not {classes}"
        )
    if problems:
        raise CheckpointError(
            f"{where}: {'; '.join(problems)}. Its backbone alone is read with "
            "`rlawrap.load_official(rlawrap.backbone(model), source)`."
        )
    return anchors, classes


def _check_classes(
    where: str, classes: int, num_classes: int | None, meta: Mapping[str, Any]
) -> None:
    named = _class_names(meta)
    if named and len(named) != classes:
        raise CheckpointError(
            f"{where}: its heads have {classes} classes, and it names {len(named)}: "
            f"{few(named, 3)}. Give the file as MMDetection wrote it."
        )
    if num_classes not in (None, classes):
        raise CheckpointError(
            f"{where}: a detector of {classes} classes, not {num_classes}. Convert it with "
            f"`--num-classes {classes}` (from Python: `num_classes={classes}`), and give a model "
            "for other classes fresh last layers."
        )
