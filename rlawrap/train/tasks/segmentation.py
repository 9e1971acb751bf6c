"""Semantic segmentation: a class for each pixel, judged by mean intersection over union."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlawrap import _torch
from rlawrap.errors import ConfigError
from rlawrap.train.data.loader import Batch, Images
from rlawrap.train.data.scenes import SceneAugment
from rlawrap.train.network.modes import evaluating
from rlawrap.train.network.outputs import described, device_of, heads
from rlawrap.train.tasks.overlap import IGNORED, Overlap
from rlawrap.train.tasks.scene_networks import build_scene_network
from rlawrap.train.tasks.scene_task import SceneTask, first_image
from rlawrap.train.tasks.task import Losses, Network, Scores

#: Weight of the loss of an auxiliary head, as in torchvision's training code.
AUXILIARY_WEIGHT = 0.5


class Segmentation(SceneTask):
    """A class for each pixel; 255 does not count. Figures are per cent, but for the loss."""

    name: ClassVar[str] = "segmentation"
    metric: ClassVar[str] = "miou"
    figures: ClassVar[tuple[str, ...]] = ("loss", "miou", "pixel_accuracy")
    logged = ("pixel_accuracy",)
    heads: ClassVar[tuple[str, ...]] = ("fcn", "deeplabv3")
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "arch": "fcn_rla_resnet50",
            "epochs": 30,
            "batch_size": 8,
            "lr": 0.01,
            "weight_decay": 1e-4,
            "schedule": "cosine",
        }
    )

    def collate(self, items: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Tensor]:
        """Images and masks, at their right and lower edges filled up to the largest of each side.

        >>> from rlawrap.train.config.train_config import TrainConfig
        >>> small = torch.ones(3, 2, 2), torch.zeros(2, 2, dtype=torch.int64)
        >>> large = torch.ones(3, 2, 3), torch.zeros(2, 3, dtype=torch.int64)
        >>> images, masks = Segmentation(TrainConfig()).collate([small, large])
        >>> images.shape, masks[0].tolist()
        (torch.Size([2, 3, 2, 3]), [[0, 0, 255], [0, 0, 255]])
        """
        height = max(image.shape[1] for image, _ in items)
        width = max(image.shape[2] for image, _ in items)

        def filled(value: Tensor, fill: int) -> Tensor:
            right, below = width - value.shape[-1], height - value.shape[-2]
            return F.pad(value, (0, right, 0, below), value=fill)

        images = torch.stack([filled(image, 0) for image, _ in items])
        return images, torch.stack([filled(mask, IGNORED) for _, mask in items])

    def augment(self) -> SceneAugment:
        """Pieces of one size, when one is asked for, so that batches are not filled up."""
        size = self.config.image_size
        whole = super().augment()
        return whole if size is None or whole.crop else replace(whole, crop=(size, size))

    def build(self, classes: Sequence[str], *, fill: bool = True) -> nn.Module:
        return build_scene_network(self.config, len(classes), self.heads, fill=fill)

    def meet(self, model: nn.Module, images: Images, *, own_code: bool) -> None:
        image = first_image(images).to(device_of(model))
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(model):
                found = heads(model(image[None]))
        except Exception as error:
            raise ConfigError(
                f"{self.config.arch}: fails on an image of the data, of shape "
                f"{tuple(image.shape)}: {type(error).__name__}: {_torch.first_line(error)}."
            ) from error
        expected = (1, len(self.classes), *image.shape[1:])
        shape = tuple(found[0].shape) if found else ()
        if shape != expected:
            raise ConfigError(
                f"{self.config.arch}: gives {shape or 'nothing'} for one image; the task "
                f"{self.name} expects a value for each class and pixel, {expected}."
            )

    def loss(self, network: Network, batch: Batch) -> Losses:
        """Cross entropy: the mean over the pixels of an image that count, summed over images."""
        outputs = network(batch.images)
        if not (found := heads(outputs)):
            raise ConfigError(f"{self.config.arch}: gives {described(outputs)}, without logits.")
        main, *auxiliary = found
        targets, weights = batch.targets, batch.weights
        counted = targets != IGNORED
        pixels = counted.flatten(1).sum(1).clamp_min(1)

        def each(logits: Tensor) -> Tensor:
            losses = F.cross_entropy(
                logits.float(),
                targets,
                ignore_index=IGNORED,
                reduction="none",
                label_smoothing=self.config.label_smoothing,
            )
            return losses.flatten(1).sum(1) / pixels

        losses = each(main)
        for logits in auxiliary:
            losses = losses + AUXILIARY_WEIGHT * each(logits)
        right = (main.detach().argmax(1) == targets) & counted
        accuracy = 100 * right.flatten(1).sum(1) / pixels * weights
        return Losses(total=(losses * weights).sum(), parts=accuracy.sum()[None])

    def scores(self, device: torch.device) -> Scores:
        return Overlap(self.classes, device)

    def show(self, name: str, value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:.4f}" if name == "loss" else f"{value:.2f}%"

    def training_text(self, means: Mapping[str, float]) -> str:
        return f"loss {means['loss']:.4f}  pixels {means['pixel_accuracy']:.1f}%"
