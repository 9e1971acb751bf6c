"""A `torch.utils.data.Dataset` of the user's own as the images of a run."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from rlawrap.errors import DataError
from rlawrap.train.data.seeding import derive_seed, local_randomness

#: `TrainConfig.data` of a run whose images were given to `train`.
GIVEN_DATA = "given"


class GivenImages:
    """Items of a map-style data set: pairs of an image [C, H, W], float, and a class number.

    All that an item draws (from torch, `random` or NumPy) is a function of (seed, epoch, index),
    so that runs are repeatable and can be resumed. A data set that draws otherwise, from a
    generator of its own say, is not.

    Raises `DataError` for items that are not such pairs.
    """

    def __init__(self, dataset: Dataset[Any], classes: Sequence[str], name: str) -> None:
        if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
            raise DataError(
                f"train: the {name} set is a {type(dataset).__name__} without a length or without "
                "items by number. Give a map-style torch.utils.data.Dataset."
            )
        if not len(dataset):
            raise DataError(f"train: the {name} set is empty.")
        self.dataset = dataset
        self.classes = tuple(classes)
        self.name = name
        self.description = f"the {name} set, a {type(dataset).__name__}"
        self.length = len(dataset)
        self.in_channels = int(self.load(0, seed=0, epoch=0)[0].shape[0])

    def __len__(self) -> int:
        return self.length

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
        """Image and label number `index`, drawn as (seed, epoch, index) say."""
        image, label = read_item(self.dataset, index, self.name, seed=seed, epoch=epoch)
        if not 0 <= label < len(self.classes):
            raise DataError(
                f"train: item {index} of the {self.name} set has class {label}, but there are "
                f"{len(self.classes)} classes, numbered from 0."
            )
        return image, label

    def fingerprint(self) -> str:
        """Digits of the length, the classes, the labels if they are listed, and two images."""
        digest = hashlib.blake2b(f"{self.length}\0{self.classes}".encode(), digest_size=16)
        labels = getattr(self.dataset, "targets", None)
        if labels is not None:
            digest.update(np.asarray(labels).tobytes())
        for index in (0, self.length - 1):
            image, label = self.load(index, seed=0, epoch=0)
            digest.update(image.contiguous().numpy().tobytes() + bytes([label % 256]))
        return digest.hexdigest()


def read_item(
    dataset: Any, index: int, name: str, *, seed: int = 0, epoch: int = 0
) -> tuple[Tensor, int]:
    """An item of a data set as image and label, all that it draws following the numbers."""
    with _all_randomness("augment", seed, epoch, index):
        item = dataset[index]
    where = f"train: item {index} of the {name} set"
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise DataError(f"{where} is a {type(item).__name__}, not a pair of image and label.")
    image, label = item
    if not isinstance(image, Tensor):
        raise DataError(
            f"{where}: its image is a {type(image).__name__}, not a tensor. Give the data set "
            "a transform that ends in torchvision.transforms.ToTensor()."
        )
    if image.dim() < 2 or not image.is_floating_point():
        raise DataError(
            f"{where}: its image is {image.dtype} of shape {tuple(image.shape)}; expected "
            "float of shape [channels, height, width]."
        )
    try:
        number = int(label)
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: its label is {label!r}; expected the number of a class."
        ) from None
    return image, number


def class_names(dataset: Any, count: int) -> tuple[str, ...]:
    """Names of the classes of a data set, its own if it has as many as `count`, else numbers.

    >>> class_names(object(), 3)
    ('0', '1', '2')
    """
    while hasattr(dataset, "dataset"):  # torch.utils.data.Subset
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    if names is not None and len(names) == count:
        return tuple(map(str, names))
    return tuple(map(str, range(count)))


@contextmanager
def _all_randomness(purpose: str, *parts: int) -> Iterator[None]:
    """`local_randomness`, for Python's and NumPy's global generators too."""
    seed = derive_seed(purpose, *parts)
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        with local_randomness(purpose, *parts):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
