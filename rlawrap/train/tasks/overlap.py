"""Mean intersection over union, and the share of pixels that are right, of a segmentation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rlawrap.errors import DataError
from rlawrap.train.data.loader import Batch
from rlawrap.train.network.outputs import heads
from rlawrap.train.process.processes import Processes, sum_type
from rlawrap.train.tasks.task import Figures

#: The class of pixels that do not count.
IGNORED = 255


def confusion_of(predicted: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Pixels by true class (rows) and predicted class, int64 [classes, classes].

    >>> confusion_of(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 255]), 2).tolist()
    [[1, 1], [0, 0]]
    """
    counted = targets != IGNORED
    cells = targets[counted] * classes + predicted[counted]
    return torch.bincount(cells, minlength=classes**2).reshape(classes, classes)


def overlaps(confusion: Tensor) -> Tensor:
    """Intersection over union of each class, float64; NaN for one that nowhere is or is seen.

    >>> overlaps(torch.tensor([[3, 1], [0, 0]])).tolist()
    [0.75, 0.0]
    """
    right = confusion.diagonal().double()
    return right / (confusion.sum(0) + confusion.sum(1) - confusion.diagonal())


class Overlap:
    """Counts the pixels of this process; classes: their names, the background's too."""

    def __init__(self, classes: tuple[str, ...], device: torch.device) -> None:
        self.classes = classes
        self.device = device
        count = len(classes)
        self.matrix = torch.zeros(count, count, dtype=torch.int64, device=device)
        self.loss = torch.zeros((), dtype=sum_type(device), device=device)
        self.count = self.skipped = 0

    def add(self, outputs: Any, batch: Batch) -> None:
        """Count a batch; one of weight 0 does not count."""
        self.skipped += len(batch.skipped)
        if not batch.counted:
            return
        logits = heads(outputs)[0].float()
        targets = batch.targets.to(self.device, non_blocking=True)
        self.loss += F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        self.matrix += confusion_of(logits.argmax(1), targets, len(self.classes))
        self.count += batch.counted

    def total(self, processes: Processes) -> Figures:
        """The figures over all processes. Raises `DataError` when no pixel was counted."""
        matrix = processes.sum(self.matrix).cpu()
        counts = torch.tensor([self.count, self.skipped], dtype=self.loss.dtype, device=self.device)
        loss, images, skipped = processes.sum(torch.cat([self.loss[None], counts])).tolist()
        pixels = int(matrix.sum())
        if not pixels:
            raise DataError(
                "nothing to judge by: no test image could be used, or no pixel of them has a class."
            )
        each = overlaps(matrix)
        known = ~each.isnan()
        return Figures(
            values={
                "loss": loss / pixels,
                "miou": 100 * float(each[known].mean()),
                "pixel_accuracy": 100 * int(matrix.diagonal().sum()) / pixels,
            },
            images=int(images),
            skipped=int(skipped),
            confusion=matrix,
            details={
                "classes": [
                    {"name": name, "iou": 100 * value if seen else None}
                    for name, value, seen in zip(
                        self.classes, each.tolist(), known.tolist(), strict=True
                    )
                ]
            },
        )
