"""What a trained detector or segmenter finds in image files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.errors import ConfigError, DataError, UnreadableError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.decode import decode, unreadable
from rlawrap.train.data.image_files import find_images
from rlawrap.train.loop.loading import filled, load_checkpoint
from rlawrap.train.network.outputs import device_of, heads
from rlawrap.train.process.processes import choose_device
from rlawrap.train.tasks.find import find_task
from rlawrap.train.tasks.scene_task import SceneTask


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found in an image file.

    image: uint8 [3, H, W], as it was read. things: boxes float32 [n, 4] (XYXY), labels int64 [n]
    from 1 on, scores float32 [n], the surest first, and masks [n, 1, H, W] of probabilities where
    there are any; empty of a segmentation. classes: int64 [H, W], of a segmentation.
    """

    file: Path
    image: Tensor
    things: Mapping[str, Tensor]
    classes: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Detector:
    """The network of a run of scenes. names: of its classes; category_ids: their numbers."""

    model: nn.Module
    task: str
    names: tuple[str, ...]
    category_ids: tuple[int, ...]


def open_detector(
    path: str | Path, *, arch: str | None = None, device: str = "auto", average: bool = True
) -> Detector:
    """The network of a run's best epoch, or of a checkpoint of one.

    arch: what makes its network now. Raises `ConfigError` for a run of classification.
    """
    state, config = load_checkpoint(path)
    if not issubclass(find_task(config.task), SceneTask):
        raise ConfigError(_other(str(path), config))
    model = filled(state, config, str(path), average=average, arch=arch, model=None)
    names = tuple(state["classes"])
    numbers: Mapping[str, Any] = state.get("memory", {})
    return Detector(
        model=model.to(choose_device(device, 0)),
        task=config.task,
        names=names,
        category_ids=tuple(numbers.get("category_ids", range(1, len(names) + 1))),
    )


def _other(path: str, config: TrainConfig) -> str:
    text = f"{path}: a run of the task {config.task}; `rlawrap detect` is for detection, instance "
    text += "and segmentation."
    if config.task == "classification":
        text += f" What whole images are of: `rlawrap predict IMAGES... --weights {path}`."
    return text


def detect(
    detector: Detector,
    images: Sequence[str | Path],
    *,
    threshold: float = 0.5,
    bad_image: Callable[[DataError], None] | None = None,
) -> Iterator[Found]:
    """What is in image files, one by one; folders stand for the images in and below them.

    threshold: the least score of what is taken. bad_image: told of a broken image, which is then
    left out; None raises its `DataError`.
    """
    read = partial(decode, channels=3)
    for file in find_images(map(Path, images)):
        try:
            image = read(_content(file), name=str(file))
        except UnreadableError:
            raise
        except DataError as error:
            if bad_image is None:
                raise
            bad_image(error)
            continue
        yield detect_in(detector, image, file, threshold)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise unreadable(str(file), error) from error


@torch.no_grad()
def detect_in(detector: Detector, image: Tensor, file: Path, threshold: float) -> Found:
    """What is in one image, uint8 [3, H, W]."""
    pixels = (image.float() / 255).to(device_of(detector.model))
    if detector.task == "segmentation":
        logits = heads(detector.model(pixels[None]))[0]
        return Found(file=file, image=image, things={}, classes=logits[0].argmax(0).cpu())
    (found,) = detector.model([pixels])
    order = found["scores"].argsort(descending=True, stable=True)
    order = order[found["scores"][order] >= threshold]
    things = {name: value[order].cpu() for name, value in found.items()}
    return Found(file=file, image=image, things=things)
