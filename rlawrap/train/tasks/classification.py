"""Classification: one class for each image, cross entropy, judged by top-1."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from rlawrap.errors import ConfigError, RLAWarning
from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.fitness import check_fitness
from rlawrap.train.data.loader import Batch, Images, PartDataset
from rlawrap.train.data.opening import open_data
from rlawrap.train.network.outputs import check_outputs, described, device_of, heads, left_out
from rlawrap.train.tasks.accuracy import Accuracy
from rlawrap.train.tasks.task import Losses, Network, Scores, Task

#: Weight of the loss of each auxiliary head (GoogLeNet, Inception), as in their papers.
AUXILIARY_WEIGHT = 0.3


class Classification(Task):
    """One class for each image. Figures are per cent, but for the loss."""

    name: ClassVar[str] = "classification"
    metric: ClassVar[str] = "top1"
    figures: ClassVar[tuple[str, ...]] = ("loss", "top1", "top5")
    logged = ("top1",)
    told = False

    def open(self, split: str, channels: int | None = None, *, whole: bool = False) -> Images:
        """One split of the configured data; `subset` applies to the training images."""
        return open_images(self.config, split, channels, whole=whole)

    def check(self, images: Images) -> None:
        check_fitness(images, self.config.batch_size)

    def parts(self, images: Images, *, training: bool) -> Dataset[Batch]:
        if not training:
            return PartDataset(images, num_classes=len(images.classes))
        augment = self.config.augment or AugmentConfig()
        return PartDataset(
            images,
            num_classes=len(images.classes),
            seed=self.config.seed,
            mixup=augment.mixup,
            cutmix=augment.cutmix,
        )

    def meet(self, model: nn.Module, images: Images, *, own_code: bool) -> None:
        image, _ = images.load(0, seed=self.config.seed, epoch=0)
        image = image.to(device_of(model))
        others = check_outputs(model, image, len(self.classes), self.config.arch)
        self.remarks = tuple(_not_learned(self.config.arch, what) for what in others)

    def loss(self, network: Network, batch: Batch) -> Losses:
        """Cross entropy of each row, auxiliary heads included."""
        targets, weights = batch.targets, batch.weights
        outputs = network(batch.images)
        main, *auxiliary = heads(outputs) or [targets.new_zeros(0)]
        if main.ndim != 2 or main.shape[1] != len(self.classes):
            raise ConfigError(
                f"{self.config.arch}: gives outputs of shape {described(outputs)} for "
                f"{len(batch.images)} images, but the data has {len(self.classes)} classes. "
                "Set num_classes in model_kwargs, or choose a classifier."
            )
        smoothing = self.config.label_smoothing
        losses = F.cross_entropy(main.float(), targets, reduction="none", label_smoothing=smoothing)
        for logits in auxiliary:
            losses = losses + AUXILIARY_WEIGHT * F.cross_entropy(
                logits.float(), targets, reduction="none", label_smoothing=smoothing
            )
        self._tell_others(outputs)
        labels = targets if targets.ndim == 1 else targets.argmax(1)
        correct = (main.detach().argmax(1) == labels) * weights
        return Losses(total=(losses * weights).sum(), parts=correct.sum()[None])

    def _tell_others(self, outputs: Any) -> None:
        """Warn, in the first step, of outputs that only a network in training mode has."""
        if not self.told:
            self.told = True
            others = left_out(outputs)
            if others and not self.remarks:
                text = "; ".join(_not_learned(self.config.arch, what) for what in others)
                warnings.warn(text, RLAWarning, stacklevel=2)

    def means(self, sums: Sequence[float], images: int) -> dict[str, float]:
        loss, correct = sums
        return {"loss": loss / max(images, 1), "top1": 100 * correct / max(images, 1)}

    def scores(self, device: torch.device) -> Scores:
        return Accuracy(len(self.classes), device, self.classes)

    def show(self, name: str, value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:.4f}" if name == "loss" else f"{value:.2f}%"

    def training_text(self, means: Mapping[str, float]) -> str:
        return f"loss {means['loss']:.4f}  top1 {means['top1']:.1f}%"

    def epoch_text(self, figures: Mapping[str, Any]) -> str:
        text = (
            f"train loss {figures['train_loss']:.4f} top1 {figures['train_top1']:.2f}%  "
            f"test loss {figures['loss']:.4f} top1 {figures['top1']:.2f}% "
            f"top5 {figures['top5']:.2f}%"
        )
        if "ema_top1" in figures:
            text += f"  average top1 {figures['ema_top1']:.2f}%"
        return text


def _not_learned(name: str, what: str) -> str:
    return f"{name}: gives {what} beside the logits, which is not learned from"


def open_images(
    config: TrainConfig, split: str, channels: int | None = None, *, whole: bool = False
) -> Images:
    """One split of labelled images; `subset` applies to the training images.

    whole: all of a folder that has no splits.
    """
    options: dict[str, Any] = {"split": split, "whole": whole}
    if split == "train":
        options["subset"] = config.subset
    return open_data(
        config.data,
        root=config.data_root,
        image_size=config.image_size,
        augment=config.augment,
        in_channels=channels,
        on_bad_image=config.on_bad_image,
        exif_orientation=config.exif_orientation,
        **options,
    )
