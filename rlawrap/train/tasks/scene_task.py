"""What the tasks on scenes share: their data, and the options that they have no use for."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor

from rlawrap.errors import ConfigError, DataError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.dataset import Split
from rlawrap.train.data.loader import Images
from rlawrap.train.data.samples import is_skipped
from rlawrap.train.data.scenes import SceneAugment, grouped_order, open_scenes
from rlawrap.train.data.scenes.dataset import Wanted
from rlawrap.train.data.shapes import SHAPES, Shapes
from rlawrap.train.tasks.task import Order, Task

#: Augmentation of whole images and their classes, which scenes have no use for, when it is on.
_OF_IMAGES = ("mixup", "cutmix", "randaugment", "trivialaugment", "erase")


class SceneTask(Task):
    """Images with what is where in them: `heads` may be put around a network for it."""

    heads: ClassVar[tuple[str, ...]]

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        for name in _OF_IMAGES:
            if getattr(config.augment, name, None):
                raise ConfigError(
                    f"{name} is for classification; the task {self.name} takes --flip. Leave it "
                    "out."
                )

    def open(self, split: str, channels: int | None = None, *, whole: bool = False) -> Images:
        """One split of a folder of scenes (COCO, VOC, masks), or of the shapes that are drawn."""
        config, wanted = self.config, cast(Wanted, self.name)
        subset = config.subset if split == "train" else None
        if config.data == SHAPES:
            return Shapes(split, wanted, config.image_size or 64, subset)
        if config.data == "builtin":
            raise ConfigError(
                f"the task {self.name} needs a folder of scenes, `rlawrap train FOLDER --task "
                f"{self.name}`; `rlawrap train {SHAPES} --task {self.name}` draws some to try it."
            )
        return open_scenes(
            Path(config.data_root or "", config.data),
            split=cast(Split, split),
            wanted=wanted,
            augment=self.augment(),
            subset=subset,
            on_bad_image=config.on_bad_image,
            whole=whole,
        )

    def augment(self) -> SceneAugment:
        """What happens to training scenes; a detector brings them to its size itself."""
        return scene_augment(self.config)

    def order(self, images: Images) -> Order | None:
        """Batches of high scenes and of wide ones, so that little is filled up."""
        groups = getattr(images, "groups", None)
        if groups is None:
            return None
        found = groups()

        def order(seed: int, epoch: int) -> Tensor:
            return grouped_order(found, seed=seed, epoch=epoch, batch_size=self.config.batch_size)

        return order if len(set(found)) > 1 else None

    def remember(self, images: Images) -> dict[str, Any]:
        """The numbers that the annotations have for the classes."""
        numbers = getattr(getattr(images, "index", None), "category_ids", None)
        return {"category_ids": list(numbers or range(1, len(images.classes) + 1))}

    def show(self, name: str, value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}%"


def scene_augment(config: TrainConfig) -> SceneAugment:
    """What `scene_augment` of the configuration says; `--flip` counts where it says nothing of it.

    Raises `ConfigError` for a name or a value that makes no sense.

    >>> scene_augment(TrainConfig(scene_augment={"crop": 256})).crop
    (256, 256)
    """
    values: dict[str, Any] = {} if config.augment is None else {"flip": config.augment.flip}
    known = [field.name for field in fields(SceneAugment)]
    for name, value in config.scene_augment.items():
        if name not in known:
            raise ConfigError(f"scene_augment: there is no {name}; there are {', '.join(known)}.")
        values[name] = tuple(value) if isinstance(value, list) else value
    if isinstance(values.get("crop"), int):
        values["crop"] = (values["crop"], values["crop"])
    if isinstance(values.get("sizes"), int):
        values["sizes"] = (values["sizes"],)
    try:
        return SceneAugment(**values)
    except TypeError as error:
        raise ConfigError(f"scene_augment={config.scene_augment}: {error}.") from error


def first_image(images: Images) -> Tensor:
    """The first image that is not damaged. Raises `DataError` when there is none."""
    for index in range(len(images)):
        image, target = images.load(index, seed=0, epoch=0)
        if not is_skipped(target):
            return image
    raise DataError("no test image could be used, all of them are broken. Look at the data.")
