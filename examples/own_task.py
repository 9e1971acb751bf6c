"""A task of one's own in one file: how many shapes are in an image, a regression.

Run it from the repository's root:

    rlawrap train --task examples/own_task.py:Counting --output runs/counting

Steps, processes, checkpoints, resuming, logs and plots are the engine's; here are the data, the
loss and the judging.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlawrap.train import Batch, Figures, Losses, Task
from rlawrap.train.data.shapes import LENGTHS, draw


class Counted:
    """Images of shapes, and how many shapes each shows."""

    classes = ("shapes",)  # one output of the network for each
    in_channels = 3

    def __init__(self, split: str, size: int, subset: int | None) -> None:
        self.split, self.size = split, size
        self.length = min(subset or LENGTHS[split], LENGTHS[split])

    def __len__(self) -> int:
        return self.length

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, float]:
        """Image and target; what is drawn at random has to follow from (seed, epoch, index)."""
        scene = draw(index, self.size, self.split)
        return scene.image, float(len(scene.labels))

    def fingerprint(self) -> str:
        """Another text when the data is another; a run does not go on then."""
        return f"{self.split} {self.length} {self.size}"


class Counting(Task):
    """The number of shapes; judged by how far it is off."""

    name = "counting"
    metric = "mean_error"  # the smaller the better, as it ends in error
    figures = ("loss", "mean_error")
    logged = ("mean_error",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "arch": "rla_cifar_resnet20",
        "image_size": 32,
        "epochs": 5,
        "batch_size": 16,
        "lr": 0.02,
    }

    def open(self, split: str, channels: int | None = None, *, whole: bool = False) -> Counted:
        return Counted(
            split, self.config.image_size or 32, self.config.subset if split == "train" else None
        )

    def loss(self, network: Any, batch: Batch) -> Losses:
        """The square of the error, and for the log its size; both summed over the images."""
        errors = network(batch.images)[:, 0].float() - batch.targets
        return Losses(
            total=(errors**2 * batch.weights).sum(),
            parts=(errors.detach().abs() * batch.weights).sum()[None],
        )

    def scores(self, device: torch.device) -> Errors:
        return Errors(device)


class Errors:
    """Sums of errors; `total` adds up those of all processes."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, outputs: Tensor, batch: Batch) -> None:
        weights = batch.weights.to(self.sums.device)
        errors = (outputs[:, 0].float() - batch.targets.to(self.sums.device)) * weights
        self.sums += torch.stack([(errors**2).sum(), errors.abs().sum(), weights.sum()])

    def total(self, processes: Any) -> Figures:
        squares, sizes, images = processes.sum(self.sums).tolist()
        return Figures(
            values={"loss": squares / images, "mean_error": sizes / images}, images=int(images)
        )
