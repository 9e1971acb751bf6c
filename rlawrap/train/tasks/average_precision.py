"""Average precision of boxes and masks as COCO defines it, by torchmetrics and pycocotools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from rlawrap.errors import DataError, RLAError
from rlawrap.train.data.loader import Batch, moved
from rlawrap.train.process.processes import Processes
from rlawrap.train.tasks.task import Figures

#: The figures by their names at torchmetrics: AP over IoU 0.50 to 0.95, at 0.50 and 0.75, and of
#: objects below 32 x 32 pixels, up to 96 x 96, and above.
FIGURES = {
    "ap": "map",
    "ap50": "map_50",
    "ap75": "map_75",
    "ap_small": "map_small",
    "ap_medium": "map_medium",
    "ap_large": "map_large",
}
#: What is compared, by torchmetrics' name: boxes, or masks.
KINDS: dict[str, Literal["bbox", "segm"]] = {"box": "bbox", "mask": "segm"}
#: A pixel belongs to a mask from this probability on, as in COCO's evaluation.
MASK_THRESHOLD = 0.5


def names(*kinds: str) -> tuple[str, ...]:
    """The names of all figures, per cent.

    >>> names("box")[:3]
    ('box_ap', 'box_ap50', 'box_ap75')
    """
    return tuple(f"{kind}_{name}" for kind in kinds for name in FIGURES)


def new_metric(*kinds: str) -> Any:
    """torchmetrics' metric. Raises `RLAError` when torchmetrics or pycocotools is missing."""
    try:
        import pycocotools  # noqa: F401
        from torchmetrics.detection import MeanAveragePrecision
    except ImportError as error:
        raise RLAError(
            "Average precision needs torchmetrics and pycocotools. Install them with: "
            "pip install 'rlawrap[train,detection]'"
        ) from error
    metric = MeanAveragePrecision(
        iou_type=tuple(KINDS[kind] for kind in kinds),
        class_metrics=True,
        backend="pycocotools",
        sync_on_compute=False,
    )
    metric.warn_on_many_detections = False  # COCO takes the best 100 of an image
    return metric


class AveragePrecision:
    """Collects detections and what is there, image by image, in any order and any process.

    The figures are of the images in the order of their numbers, so that they do not depend on how
    many processes judged. kinds: "box", "mask".
    """

    def __init__(self, classes: tuple[str, ...], *kinds: str) -> None:
        self.classes = classes
        self.kinds = kinds
        self.metric = new_metric(*kinds)
        self.numbers: list[int] = []
        self.skipped = 0

    def add(self, outputs: Any, batch: Batch) -> None:
        """Count the detections of a batch of images; a batch of weight 0 does not count."""
        self.skipped += len(batch.skipped)
        if not batch.counted:
            return
        cpu = torch.device("cpu")
        for found, target in zip(outputs, batch.targets, strict=True):
            self.metric.update([_detections(moved(found, cpu))], [moved(target, cpu)])
            self.numbers.append(int(target["image_id"]))

    def total(self, processes: Processes) -> Figures:
        """The figures over all processes. Raises `DataError` when there is nothing to judge by."""
        states = self.metric.metric_state
        gathered = processes.gather((self.numbers, states, self.skipped))
        numbers = [number for own, _, _ in gathered for number in own]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        whole = new_metric(*self.kinds)
        for name in states:
            values = [value for _, own, _ in gathered for value in own[name]]
            # Boxes have no masks, and masks no boxes, where only the others are compared.
            setattr(whole, name, [values[n] for n in order] if values else [])
        if not any(len(labels) for labels in whole.groundtruth_labels):
            raise DataError(
                f"nothing to judge by: none of the {len(numbers)} test images has an object. "
                "Look at the annotations of the test split."
            )
        whole._update_count = 1  # else it warns that nothing was counted
        values = whole.compute()
        return Figures(
            values={
                f"{kind}_{name}": _per_cent(self._value(values, kind, key))
                for kind in self.kinds
                for name, key in FIGURES.items()
            },
            images=len(numbers),
            skipped=sum(skipped for _, _, skipped in gathered),
            details={"classes": self._by_class(values)},
        )

    def _value(self, values: Mapping[str, Tensor], kind: str, key: str) -> Tensor:
        return values[key if len(self.kinds) == 1 else f"{KINDS[kind]}_{key}"]

    def _by_class(self, values: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """The average precision of each class, None where there is no object of it."""
        seen = values["classes"].reshape(-1).tolist()
        rows = []
        for number, name in enumerate(self.classes, 1):
            row: dict[str, Any] = {"name": name}
            for kind in self.kinds:
                by_class = self._value(values, kind, "map_per_class").reshape(-1)
                at = seen.index(number) if number in seen else None
                row[f"{kind}_ap"] = None if at is None else _per_cent(by_class[at])
            rows.append(row)
        return rows


def _per_cent(value: Tensor) -> float | None:
    """COCO's evaluation gives -1 where there is no object to find."""
    share = float(value)
    return None if share < 0 else 100 * share


def _detections(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A detector's output as the metric takes it: masks [n, H, W], yes or no."""
    taken = {name: found[name] for name in ("boxes", "scores", "labels")}
    if "masks" in found:
        masks = found["masks"]
        taken["masks"] = (masks[:, 0] if masks.ndim == 4 else masks) > MASK_THRESHOLD
    return {name: value.float() if name in ("boxes", "scores") else value
            for name, value in taken.items()}  # fmt: skip
