"""Loss, top-1, top-5 and the confusion matrix of a network over a data set, each image once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlawrap.errors import DataError, RLAError
from rlawrap.train.loader import Batch
from rlawrap.train.processes import Processes
from rlawrap.train.step import heads


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """loss: mean cross entropy. top1, top5: per cent right. images: how many were judged.

    skipped: broken images that were left out.

    confusion: int64 [classes, classes], rows are true classes, columns predicted ones.
    """

    loss: float
    top1: float
    top5: float
    images: int
    confusion: Tensor
    skipped: int = 0

    def to_dict(self) -> dict[str, float]:
        """The figures, without the matrix."""
        return {"loss": self.loss, "top1": self.top1, "top5": self.top5}


@torch.no_grad()
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
    """Judge a network in evaluation mode; its mode is put back afterwards.

    All processes take part, each with its own batches, and all get the same result. With fewer
    than five classes top5 is the accuracy among as many guesses as there are classes.
    Raises `DataError` when there was no image to judge by.
    """
    try:
        from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
    except ImportError as error:
        raise RLAError(
            "Evaluation needs torchmetrics. Install it with: pip install 'rlawrap[train]'"
        ) from error
    processes = processes or Processes()
    device = processes.device
    # The sums of each process are added up below, in one go, so the metrics need not meet.
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "ignore_index": -1,
        "sync_on_compute": False,
    }
    guesses = min(5, num_classes)
    top1 = MulticlassAccuracy(average="micro", top_k=1, **options).to(device)
    top5 = MulticlassAccuracy(average="micro", top_k=guesses, **options).to(device)
    matrix = MulticlassConfusionMatrix(**options).to(device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    count = skipped = 0

    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for batch in batches:
            images = to_device(batch.images) if to_device else batch.images.to(device)
            targets = batch.targets.to(device, non_blocking=True)
            counted = batch.weights.to(device, non_blocking=True) > 0
            with autocast():
                outputs = model(images)
            logits = heads(outputs)[0].float()
            losses = F.cross_entropy(logits, targets, reduction="none")
            loss += torch.where(counted, losses, 0).sum()
            labels = torch.where(counted, targets, -1)
            top1.update(logits, labels)
            top5.update(logits, labels)
            matrix.update(logits, labels)
            count += batch.counted
            skipped += len(batch.skipped)
            if after_batch:
                after_batch(batch.counted)
    finally:
        for module, mode in training.items():
            module.training = mode

    def right(metric: Any) -> Tensor:
        return metric.tp.sum().double()

    confusion = processes.sum(matrix.compute())
    sums = torch.stack(
        [
            loss,
            right(top1),
            right(top5),
            torch.tensor(count, dtype=torch.float64, device=device),
            torch.tensor(skipped, dtype=torch.float64, device=device),
        ]
    )
    total_loss, right1, right5, images_judged, left_out = processes.sum(sums).tolist()
    if not images_judged:
        raise DataError(
            "no test image could be used, all of them are broken. Look at the data; "
            "on_bad_image='fatal' (--on-bad-image fatal) names the first one."
        )
    return Evaluation(
        loss=total_loss / images_judged,
        top1=100 * right1 / images_judged,
        top5=100 * right5 / images_judged,
        images=int(images_judged),
        confusion=confusion.cpu(),
        skipped=int(left_out),
    )
