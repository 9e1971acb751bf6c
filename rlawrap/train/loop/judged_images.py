"""The images that a run's network is judged by, made ready as those of its training were."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlawrap.errors import CheckpointError, ConfigError, few
from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.dataset import Preparation
from rlawrap.train.data.given import GIVEN_DATA
from rlawrap.train.data.loader import Images
from rlawrap.train.data.opening import place_of
from rlawrap.train.tasks.find import make_task
from rlawrap.train.tasks.task import Task


def prepared_alike(state: Mapping[str, Any], config: TrainConfig, size: int | None) -> TrainConfig:
    """The configuration with the size and normalisation that a checkpoint's network was tested at.

    size: another side of the images. Other data has a usual size and normalisation of its own,
    which the network never saw. A checkpoint that says nothing of it leaves them to the data.
    """
    if state.get("preparation") is None:
        return config if size is None else config.replace(image_size=size)
    ready = Preparation(**state["preparation"]).at(size)
    augment = config.augment or AugmentConfig.for_size(ready.size)
    augment = augment.replace(mean=ready.mean, std=ready.std, resize=ready.resize)
    return config.replace(image_size=ready.size, augment=augment)


def images_of_run(
    path: str | Path,
    state: Mapping[str, Any],
    task: Task,
    split: str | None,
    images: Images | None,
    channels: int,
    *,
    own: bool,
) -> Images:
    """Images to judge a run's network by, of the classes that it knows; the task opens them.

    own: nobody named data, so that they are the run's, wherever it lies now.
    """
    config = task.config
    if images is None and config.data == GIVEN_DATA:
        raise ConfigError(
            f"{path}: its images were given to train(). Name data to judge it by, or pass images=."
        )
    if images is None:
        # Of the folder that it was trained on, only what was held out tells how good it is.
        whole = split is None and not own and not _trained_on(state, config)
        whole_task = make_task(config.replace(subset=None))
        images = open_to_judge(whole_task, split or "test", channels, whole=whole)
    if list(images.classes) != state["classes"]:
        raise CheckpointError(
            f"{path}: trained on {len(state['classes'])} classes ({few(state['classes'], 5)}), "
            f"but the data has {len(images.classes)} ({few(images.classes, 5)})."
        )
    return images


def open_to_judge(
    task: Task, split: str, channels: int | None = None, *, whole: bool = False
) -> Images:
    """Images of a split without the augmentation that training images get, where they are ours."""
    images = task.open(split, channels, whole=whole)
    plain: Callable[[], Images] | None = getattr(images, "for_judging", None)
    return images if plain is None else plain()


def _trained_on(state: Mapping[str, Any], config: TrainConfig) -> bool:
    """Whether a checkpoint's network was trained on the data that a configuration names."""
    here, recorded = place_of(config.data, config.data_root), state["data"].get("place")
    if recorded is not None and (here == recorded or os.path.exists(recorded)):
        return bool(here == recorded)
    # The data was moved, or a checkpoint of an earlier version does not say where it was.
    before = TrainConfig.from_dict(state["config"])
    return config.data == before.data or here == place_of(before.data, before.data_root)
