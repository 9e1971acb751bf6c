"""A `torch.utils.data.Dataset` of the user's own as the images of a run."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Collection, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

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

    def __init__(self, dataset: Dataset[Any], classes: Sequence[Any], name: str) -> None:
        self.length = count_items(dataset, name)
        self.dataset = dataset
        self.classes = tuple(map(str, classes))
        self.name = name
        self.description = f"the {name} set, a {type(dataset).__name__}"
        self.shape: torch.Size | None = None
        self.shape = self.load(0, seed=0, epoch=0)[0].shape
        self.in_channels = int(self.shape[0])

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
        if self.shape is not None and image.shape != self.shape:
            raise DataError(
                f"train: item {index} of the {self.name} set has an image of shape "
                f"{tuple(image.shape)}, but item 0 has one of {tuple(self.shape)}. Give the data "
                "set a transform that makes them one size, such as torchvision.transforms.Resize("
                "(224, 224))."
            )
        return image, label

    def fingerprint(self) -> str:
        """Digits of the length, the classes, the labels if they are listed, and two images."""
        digest = hashlib.blake2b(f"{self.length}\0{self.classes}".encode(), digest_size=16)
        labels = getattr(self.dataset, "targets", None)
        if labels is not None:
            digest.update(_label_bytes(labels))
        for index in (0, self.length - 1):
            image, label = self.load(index, seed=0, epoch=0)
            # As bytes, since NumPy has no bfloat16.
            pixels = image.cpu().contiguous().flatten().view(torch.uint8)
            digest.update(pixels.numpy().tobytes() + bytes([label % 256]))
        return digest.hexdigest()


def count_items(dataset: Any, name: str) -> int:
    """How many items a data set has. Raises `DataError` for none, and for a stream of them."""
    # Every `Dataset` has a `__getitem__`, which a stream's does not fill.
    by_number = getattr(type(dataset), "__getitem__", None) not in (None, Dataset.__getitem__)
    if not isinstance(dataset, Sized) or not by_number or isinstance(dataset, IterableDataset):
        raise DataError(
            f"train: the {name} set is a {type(dataset).__name__} without a length or without "
            "items by number. Give a map-style torch.utils.data.Dataset."
        )
    if not len(dataset):
        raise DataError(f"train: the {name} set is empty.")
    return len(dataset)


def _whole_number(label: Any) -> int | None:
    """A label as a number; None for one that is none, or no whole one."""
    try:
        number = int(label)
        known = isinstance(label, str) or not hasattr(label, "__float__")
        return number if known or float(label) == number else None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _label_bytes(labels: Any) -> bytes:
    """Listed labels as bytes that are the same in every process."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu()
    try:
        values = np.asarray(labels)
    except (TypeError, ValueError):  # of several lengths
        values = None
    if values is not None and not values.dtype.hasobject:
        return values.tobytes()
    # The bytes of an array of objects are their addresses, and so may be a part of their words.
    listed = labels if values is None else values.tolist()
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(listed)).encode(errors="backslashreplace")


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
    number = _whole_number(label)
    if number is None:
        raise DataError(f"{where}: its label is {label!r}; expected the number of a class.")
    return image.detach(), number


def class_names(dataset: Any, count: int) -> tuple[str, ...]:
    """Names of the classes of a data set, its own if it has as many as `count`, else numbers.

    >>> class_names(object(), 3)
    ('0', '1', '2')
    """
    while hasattr(dataset, "dataset"):  # torch.utils.data.Subset
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    if isinstance(names, Collection) and not isinstance(names, str) and len(names) == count:
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
