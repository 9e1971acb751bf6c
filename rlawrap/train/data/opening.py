"""From what the user wrote to an `ImageDataset`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rlawrap.errors import ConfigError, DataError
from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.data.cifar_images import open_cifar
from rlawrap.train.data.dataset import ImageDataset, OnBadImage, Source, Split, choose_subset
from rlawrap.train.data.fashion import holds, open_fashion_mnist, open_sample, read_folder
from rlawrap.train.data.folder import open_folder
from rlawrap.train.data.shards import holds_shards, open_shards

#: Data sets with a name; anything else is a folder. A new one is a function and a line here.
NAMED: MappingProxyType[str, Callable[[Path | None, Split], Source]] = MappingProxyType(
    {
        "builtin": lambda root, split: open_sample(split),
        "fashion-mnist": open_fashion_mnist,
        "cifar10": lambda root, split: open_cifar("CIFAR10", root, split),
        "cifar100": lambda root, split: open_cifar("CIFAR100", root, split),
    }
)


def default_size(spec: str) -> int:
    """The side of the images of a data set when nobody asks for another, before it is opened.

    >>> default_size("cifar10"), default_size("photographs/train")
    (32, 224)
    """
    return 32 if spec in NAMED else 224


def place_of(spec: str, root: str | None = None) -> str:
    """Where data lies, whatever folder it is looked for from; a name of a data set is its place.

    >>> place_of("cifar10", "data"), os.path.isabs(place_of("."))
    ('cifar10', True)
    """
    return spec if spec in NAMED else os.path.realpath(Path(root or "", spec).expanduser())


def open_data(
    spec: str | os.PathLike[str] = "builtin",
    *,
    root: str | os.PathLike[str] | None = None,
    split: Split = "train",
    image_size: int | None = None,
    augment: AugmentConfig | None = None,
    in_channels: int | None = None,
    subset: int | None = None,
    on_bad_image: OnBadImage = "fatal",
    exif_orientation: bool = True,
    whole: bool = False,
) -> ImageDataset:
    """Open one split of a data set.

    spec: "builtin" (a sample of Fashion-MNIST that comes with rlawrap), "fashion-mnist", "cifar10",
    "cifar100" (looked for in `root`, downloaded when missing), or a folder: of class folders, with
    or without train/ and val/ above them, of tar shards, or of the files of Fashion-MNIST.
    split: "train" (augmented) or "test" (resized and centred).
    image_size: side of the images; None is 32 for the named sets and 224 for folders and shards.
    in_channels: 1 or 3; None takes the images' own (folders and shards: 3).
    subset: use that many images only, classes as even as possible, always the same ones.
    on_bad_image: "fatal" raises at a damaged image, "skip" logs it and marks it with `SKIPPED`.
    exif_orientation: bring photographs upright as their EXIF data says; False takes their pixels as
    they are stored, which is what torchvision does.
    whole: take all of a folder that has no splits; otherwise a tenth of it is the test split.

    Raises `DataError` when there is nothing to read or labels are wrong, `ConfigError` for an
    option that makes no sense.

    >>> open_data("builtin", split="train", image_size=32, subset=50).class_counts()["Bag"]
    5
    """
    if split not in ("train", "test"):
        raise ConfigError(f"split={split!r}: choose 'train' or 'test'.")
    source, indices = _open_source(
        os.fspath(spec), root, split, whole=whole, exif_orientation=exif_orientation
    )
    if subset is not None:
        labels = source.labels if indices is None else source.labels[indices]
        chosen = choose_subset(labels, subset)
        indices = chosen if indices is None else indices[np.asarray(chosen)]
    return ImageDataset(
        source,
        split=split,
        image_size=image_size,
        augment=augment,
        in_channels=in_channels,
        on_bad_image=on_bad_image,
        indices=indices,
    )


def _open_source(
    spec: str,
    root: str | os.PathLike[str] | None,
    split: Split,
    *,
    whole: bool,
    exif_orientation: bool,
) -> tuple[Source, NDArray[np.int64] | None]:
    """Where the images come from, and their numbers when the split is a part of them."""
    if spec in NAMED:
        return NAMED[spec](None if root is None else Path(root), split), None
    path = Path(root or "", spec).expanduser()
    if not path.is_dir():
        raise DataError(
            f"{path}: {'is not a folder' if path.exists() else 'no such folder'}. "
            f"Give a folder of images, or one of {', '.join(NAMED)}."
        )
    if holds(path, split):
        return read_folder(path, split, f"fashion-mnist in {path}"), None
    opener = open_shards if holds_shards(path) else open_folder
    return opener(path, split, whole=whole, exif_orientation=exif_orientation)
