"""Judging a network on a data set, for any task."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from rlawrap.train.data.loader import Batch, moved
from rlawrap.train.network.modes import evaluating
from rlawrap.train.process.processes import Processes
from rlawrap.train.tasks.task import Judged, Scores


@torch.no_grad()
def judge_model(
    model: nn.Module,
    batches: Iterable[Batch],
    scores: Scores,
    *,
    processes: Processes | None = None,
    autocast: Callable[[], Any] = nullcontext,
    to_device: Callable[[Any], Any] | None = None,
    after_batch: Callable[[int], None] | None = None,
) -> Judged:
    """Judge a network in evaluation mode; its mode is put back afterwards.

    All processes take part, each with its own batches, and all get the same result.
    Raises `DataError` when there was no image to judge by.
    """
    processes = processes or Processes()
    with evaluating(model):
        for batch in batches:
            move = to_device or (lambda images: moved(images, processes.device))
            with autocast():
                outputs = model(move(batch.images))
            scores.add(outputs, batch)
            if after_batch:
                after_batch(batch.counted)
    return scores.total(processes)
