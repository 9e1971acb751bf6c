"""What a trained network takes image files for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from rlawrap.errors import CheckpointError, ConfigError, DataError, UnreadableError, printable
from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.dataset import Preparation, per_channel
from rlawrap.train.data.decode import decode, unreadable
from rlawrap.train.data.folder import IMAGENET_MEAN, IMAGENET_STD
from rlawrap.train.data.image_files import find_images
from rlawrap.train.data.transforms import eval_transform
from rlawrap.train.loop.loading import filled, is_of_run, load_checkpoint
from rlawrap.train.loop.plain_weights import class_names, count_classes, load_weights_of
from rlawrap.train.network.build import input_channels
from rlawrap.train.network.outputs import heads
from rlawrap.train.process.processes import choose_device
from rlawrap.train.tasks.classification import open_images


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A file, and the likeliest classes with their probabilities, the likeliest first."""

    file: str
    classes: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        predictions = [{"class": name, "probability": share} for name, share in self.classes]
        return {"file": self.file, "predictions": predictions}


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """A network, how images are made ready for it, and the names of its classes, where known."""

    model: nn.Module
    preparation: Preparation
    upright: bool
    classes: Sequence[str] | None

    def name(self, number: int) -> str:
        """The name of a class, or its number."""
        return str(number) if self.classes is None else self.classes[number]


def predict(
    weights: str | Path,
    images: Sequence[str | Path],
    *,
    arch: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    imports: Sequence[str] = (),
    rla: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    top: int = 5,
    batch_size: int = 64,
    device: str = "auto",
    average: bool = True,
    bad_image: Callable[[DataError], None] | None = None,
) -> Iterator[Prediction]:
    """What a trained network takes image files for, one by one.

    weights: a run folder (its best network), a checkpoint of a run, or plain weights of the network
    that `arch` names, built with `model_kwargs`, `imports` and `rla`; for a run `arch` is what
    makes its network now.
    The images are turned upright, resized, cut and normalised as the test images of the run were;
    for plain weights as those of a folder are: 224 pixels unless `image_size` says otherwise, and
    ImageNet's normalisation. Classes have the names that the run or the file has, or their numbers.
    Folders stand for the images in and below them. bad_image: told of a broken image, which is then
    left out; None raises its `DataError`.

    Raises `CheckpointError` for weights that do not fit, and for those of which nobody says whose
    they are.
    """
    files = find_images(map(Path, images))
    if arch is None or is_of_run(weights):
        if model_kwargs or rla is not None:
            raise ConfigError(
                "--model-arg and --rla go with --arch, for weights that are no run's."
            )
        judge = _of_run(weights, arch, average=average)
    else:
        config = TrainConfig(
            arch=arch,
            model_kwargs=dict(model_kwargs or {}),
            imports=tuple(imports),
            rla=None if rla is None else dict(rla),
        )
        judge = _of_weights(weights, config)
    judge = replace(judge, preparation=judge.preparation.at(image_size))
    yield from _predictions(judge, files, top, batch_size, device, bad_image)


def _predictions(
    judge: _Judge,
    files: Sequence[Path],
    top: int,
    batch_size: int,
    device: str,
    bad_image: Callable[[DataError], None] | None,
) -> Iterator[Prediction]:
    place = choose_device(device, 0)
    judge.model.to(place)
    how = judge.preparation
    read = partial(decode, channels=how.channels, exif_orientation=judge.upright)
    prepared = _prepared(files, read, how, bad_image)
    while batch := list(islice(prepared, batch_size)):
        with torch.no_grad():
            logits = heads(judge.model(torch.stack([image for _, image in batch]).to(place)))[0]
        shares, numbers = logits.float().softmax(1).cpu().topk(min(top, logits.shape[1]))
        for (file, _), row, which in zip(batch, shares.tolist(), numbers.tolist(), strict=True):
            names = map(judge.name, which)
            yield Prediction(file=str(file), classes=tuple(zip(names, row, strict=True)))


def _of_run(path: str | Path, arch: str | None, *, average: bool) -> _Judge:
    """The network of a run or of a checkpoint."""
    state, config = load_checkpoint(path)
    if config.task != "classification":
        raise ConfigError(
            f"{path}: a run of the task {config.task}; `rlawrap predict` names classes of whole "
            f"images. What is where in them: `rlawrap detect IMAGE... --weights {path}`."
        )
    model = filled(state, config, str(path), average=average, arch=arch, model=None)
    return _Judge(
        model=model,
        preparation=_preparation(state, config, model, str(path)),
        upright=config.exif_orientation,
        classes=state["classes"],
    )


def _of_weights(path: str | Path, config: TrainConfig) -> _Judge:
    """The network that `config` names with the weights in a file."""
    count = count_classes(path, config)
    names = class_names(path)
    if names is not None and len(names) != count:
        raise CheckpointError(
            f"{path}: names {len(names)} classes, but its weights tell {count} apart."
        )
    model = load_weights_of(path, config, count)
    channels = input_channels(model)
    preparation = Preparation(
        channels=channels,
        size=224,
        mean=per_channel("mean", IMAGENET_MEAN, channels),
        std=per_channel("std", IMAGENET_STD, channels),
        resize=None,
    )
    return _Judge(model=model, preparation=preparation, upright=True, classes=names)


def _preparation(
    state: dict[str, Any], config: TrainConfig, model: nn.Module, where: str
) -> Preparation:
    """How the run's test images were made ready; a run of an earlier version is asked for its data.

    Raises `CheckpointError` when the data is none of ours, and only it knows.
    """
    if state.get("preparation") is not None:
        return Preparation(**state["preparation"])
    images = None
    if "preparation" not in state:
        images = open_images(config, "test", input_channels(model))
    preparation = getattr(images, "preparation", None)
    if preparation is None:
        raise CheckpointError(
            f"{where}: its images came from a data set of your own, which alone knows how they are "
            "made ready. Use `rlawrap.train.load_model` and your data set's transform."
        )
    return Preparation(**preparation.to_dict())


def _prepared(
    files: Iterable[Path],
    read: Callable[..., Tensor],
    how: Preparation,
    bad_image: Callable[[DataError], None] | None,
) -> Iterator[tuple[Path, Tensor]]:
    transform = eval_transform(
        AugmentConfig(resize=how.resize), how.size, mean=how.mean, std=how.std
    )
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise unreadable(str(file), error) from error
        try:
            image = read(content, name=str(file))
        except UnreadableError:
            raise
        except DataError as error:
            if bad_image is None:
                raise
            bad_image(error)
            continue
        yield file, transform(image)


def write_csv(predictions: Iterable[Prediction], file: TextIO) -> None:
    """A row for each file: its name (`printable`), then classes and probabilities."""
    table = csv.writer(file)
    for number, prediction in enumerate(predictions):
        if number == 0:
            ranks = range(1, len(prediction.classes) + 1)
            titles = [f"{word}{rank}" for rank in ranks for word in ("class", "probability")]
            table.writerow(["file", *titles])
        values = [value for name, share in prediction.classes for value in (name, f"{share:.6f}")]
        table.writerow([printable(prediction.file), *values])


def write_json(predictions: Iterable[Prediction], file: TextIO) -> None:
    """A list with an object for each file."""
    json.dump([prediction.to_dict() for prediction in predictions], file, indent=1)
    file.write("\n")
