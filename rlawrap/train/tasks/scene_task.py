"""What the tasks on scenes share: their data, and the options that they have no use for."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from rlawrap.errors import ConfigError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.loader import Images
from rlawrap.train.data.shapes import SHAPES, Shapes
from rlawrap.train.tasks.task import Order, Task

Kind = Literal["detection", "instance", "segmentation"]


class SceneTask(Task):
    """Images with what is where in them."""

    heads: ClassVar[tuple[str, ...]]

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        _check_options(config)

    def open(self, split: str, channels: int | None = None, *, whole: bool = False) -> Images:
        if self.config.data == SHAPES:
            return Shapes(split, _SHAPES[self.name], self.config.image_size or 64, self._subset(split))
        raise ConfigError(self.config.data)

    def _subset(self, split: str) -> int | None:
        return self.config.subset if split == "train" else None

    def show(self, name: str, value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}%"


_SHAPES = {"detection": "boxes", "instance": "masks", "segmentation": "classes"}


def _check_options(config: TrainConfig) -> None:
    """Raise `ConfigError` for options of classification, which would be passed over in silence."""
    augment = config.augment
    if augment is not None and (augment.mixup or augment.cutmix):
        raise ConfigError(f"mixup and cutmix mix classes of whole images, not of {config.task}.")
