"""Loss, top-1, top-5 and the confusion matrix of a network over a data set, each image once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlawrap.errors import DataError, RLAError
from rlawrap.train.data.loader import Batch
from rlawrap.train.network.outputs import heads
from rlawrap.train.process.processes import Processes, sum_type
from rlawrap.train.tasks.judge import judge_model


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """loss: mean cross entropy. top1, top5: per cent right. images: how many were judged.

    skipped: broken images that were left out. classes: their names, where they are known.
    confusion: int64 [classes, classes], rows are true classes, columns predicted ones.
    """

    loss: float
    top1: float
    top5: float
    images: int
    confusion: Tensor
    skipped: int = 0
    classes: tuple[str, ...] = ()

    @property
    def details(self) -> dict[str, Any]:
        """Nothing: what is known of each class is in the matrix."""
        return {}

    def to_dict(self) -> dict[str, float]:
        """The figures, without the matrix."""
        return {"loss": self.loss, "top1": self.top1, "top5": self.top5}


def evaluate_model(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    processes: Processes | None = None,
    autocast: Callable[[], Any] = nullcontext,
    to_device: Callable[[Tensor], Tensor] | None = None,
    after_batch: Callable[[int], None] | None = None,
) -> Evaluation:
    """Judge a classifier in evaluation mode; its mode is put back afterwards.

    All processes take part, each with its own batches, and all get the same result. With fewer
    than five classes top5 is the accuracy among as many guesses as there are classes.
    Raises `DataError` when there was no image to judge by.
    """
    processes = processes or Processes()
    found = judge_model(
        model,
        batches,
        Accuracy(num_classes, processes.device),
        processes=processes,
        autocast=autocast,
        to_device=to_device,
        after_batch=after_batch,
    )
    return cast(Evaluation, found)


class Accuracy:
    """What this process has counted so far, on its device. classes: their names, where known."""

    def __init__(
        self, num_classes: int, device: torch.device, classes: tuple[str, ...] = ()
    ) -> None:
        try:
            from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
        except ImportError as error:
            raise RLAError(
                "Evaluation needs torchmetrics. Install it with: pip install 'rlawrap[train]'"
            ) from error
        # The sums of each process are added up in `total`, in one go, so the metrics need not meet.
        options: dict[str, Any] = {
            "num_classes": num_classes,
            "ignore_index": -1,
            "sync_on_compute": False,
        }
        guesses = min(5, num_classes)
        self.device = device
        self.classes = classes
        self.top1 = MulticlassAccuracy(average="micro", top_k=1, **options).to(device)
        self.top5 = MulticlassAccuracy(average="micro", top_k=guesses, **options).to(device)
        self.matrix = MulticlassConfusionMatrix(**options).to(device)
        self.loss = torch.zeros((), dtype=sum_type(device), device=device)
        self.count = self.skipped = 0

    def add(self, outputs: Any, batch: Batch) -> None:
        """Count a batch; rows without weight are left out."""
        logits = heads(outputs)[0].float()
        targets = batch.targets.to(self.device, non_blocking=True)
        counted = batch.weights.to(self.device, non_blocking=True) > 0
        losses = F.cross_entropy(logits, targets, reduction="none")
        self.loss += torch.where(counted, losses, 0).sum()
        labels = torch.where(counted, targets, -1)
        for metric in (self.top1, self.top5, self.matrix):
            metric.update(logits, labels)
        self.count += batch.counted
        self.skipped += len(batch.skipped)

    def total(self, processes: Processes) -> Evaluation:
        """The figures over all processes. Raises `DataError` when no image was counted."""
        confusion = processes.sum(self.matrix.compute())
        accuracies: list[Any] = [self.top1, self.top5]
        right = [metric.tp.sum().to(self.loss.dtype) for metric in accuracies]
        counts = torch.tensor([self.count, self.skipped], dtype=self.loss.dtype, device=self.device)
        sums = processes.sum(torch.cat([torch.stack([self.loss, *right]), counts]))
        loss, right1, right5, images, skipped = sums.tolist()
        if not images:
            raise DataError(
                "no test image could be used, all of them are broken. Look at the data; "
                "on_bad_image='fatal' (--on-bad-image fatal) names the first one."
            )
        return Evaluation(
            loss=loss / images,
            top1=100 * right1 / images,
            top5=100 * right5 / images,
            images=int(images),
            confusion=confusion.cpu(),
            skipped=int(skipped),
            classes=self.classes,
        )
