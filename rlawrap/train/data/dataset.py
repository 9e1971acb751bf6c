"""`ImageDataset`: labelled images by number, augmented by (seed, epoch, number) alone."""

from __future__ import annotations

import copy
import hashlib
import logging
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rlawrap.errors import ConfigError, DataError, UnreadableError
from rlawrap.train.config.augment import AugmentConfig, resize_at
from rlawrap.train.data.seeding import derive_seed, local_randomness
from rlawrap.train.data.transforms import eval_transform, train_transform

log = logging.getLogger(__name__)

Split = Literal["train", "test"]
OnBadImage = Literal["fatal", "skip"]

#: The label of an image that could not be read and was skipped; `cross_entropy` ignores it.
SKIPPED = -100


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How test images are made ready: channels, side, normalisation, and `AugmentConfig.resize`."""

    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    def at(self, size: int | None) -> Preparation:
        """The same for images of another side, which `resize` belongs to and changes with.

        >>> ready = Preparation(channels=1, size=224, mean=(0.5,), std=(0.5,), resize=256)
        >>> ready.at(288).resize, ready.at(None).size
        (329, 224)
        """
        if size is None or size == self.size:
            return self
        resize = None if self.resize is None else resize_at(self.resize, self.size, size)
        return replace(self, size=size, resize=resize)


class Source(Protocol):
    """Where images come from: arrays, a folder, tar shards. `read` gives uint8 [C, H, W]."""

    classes: tuple[str, ...]
    channels: int
    default_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: NDArray[np.int64]
    description: str
    remarks: tuple[str, ...]

    def read(self, index: int) -> Tensor: ...

    def name(self, index: int) -> str: ...

    def fingerprint(self) -> str: ...


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """A map-style data set of labelled images.

    Every image is [in_channels, image_size, image_size], float32, normalised. All randomness of
    `load` is a function of (seed, epoch, index), so that any process may load any sample at any
    time and get the same bits; torch's global generator is left as it was.

    `description` says in a line where the images come from, `remarks` what was left out of them;
    `labels` holds all labels.
    """

    def __init__(
        self,
        source: Source,
        *,
        split: Split,
        image_size: int | None = None,
        augment: AugmentConfig | None = None,
        in_channels: int | None = None,
        on_bad_image: OnBadImage = "fatal",
        indices: NDArray[np.int64] | None = None,
    ) -> None:
        if image_size is None:
            image_size = source.default_size
        if image_size < 1:
            raise ConfigError(f"image_size={image_size}: must be at least 1.")
        if split not in ("train", "test"):
            raise ConfigError(f"split={split!r}: choose 'train' or 'test'.")
        if on_bad_image not in ("fatal", "skip"):
            raise ConfigError(f"on_bad_image={on_bad_image!r}: choose 'fatal' or 'skip'.")
        if in_channels not in (None, 1, 3):
            raise ConfigError(f"in_channels={in_channels}: images have 1 or 3 channels.")
        self.source = source
        self.split = split
        self.image_size = image_size
        self.augment = augment or AugmentConfig.for_size(image_size)
        resize = self.augment.resize
        if split == "train" and resize is not None and resize < image_size:
            # Not of test images alone, so that runs of earlier versions can be judged.
            raise ConfigError(
                f"resize={resize}: smaller than image_size={image_size}, so test images would have "
                f"black borders. Set --resize to {round(image_size * 256 / 224)}, as usual, or "
                f"{image_size} at least."
            )
        self.in_channels = in_channels or source.channels
        self.on_bad_image = on_bad_image
        self.classes = source.classes
        self.indices = indices
        self.labels = source.labels if indices is None else source.labels[indices]
        self.description = source.description
        self.remarks = source.remarks
        mean = per_channel("mean", self.augment.mean or source.mean, self.in_channels)
        std = per_channel("std", self.augment.std or source.std, self.in_channels)
        self.preparation = Preparation(
            channels=self.in_channels,
            size=image_size,
            mean=mean,
            std=std,
            resize=self.augment.resize,
        )
        build = train_transform if split == "train" else eval_transform
        self.transform = build(self.augment, image_size, mean=mean, std=std)
        if not len(self):
            raise DataError(f"{source.description}: no images in the {split} split.")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.load(index, seed=0, epoch=0)

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
        """Image and label number `index`, augmented as (seed, epoch, index) say.

        A damaged image raises `DataError` with its name; with on_bad_image="skip" it is logged
        and zeros with the label `SKIPPED` (-100) are returned, for `drop_skipped` to take out.
        A file that cannot be read at all raises `UnreadableError` in either case.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        try:
            image = to_channels(self.source.read(self._at(index)), self.in_channels)
        except UnreadableError:
            raise  # a disk that is gone would make every image a bad one
        except DataError as error:
            if self.on_bad_image == "fatal":
                raise
            log.warning("skipped: %s", error)
            return torch.zeros(self.in_channels, self.image_size, self.image_size), SKIPPED
        with local_randomness("augment", seed, epoch, index):
            return self.transform(image), int(self.labels[index])

    def for_judging(self) -> ImageDataset:
        """The same images without augmentation, as those of the test split are made ready."""
        same, ready = copy.copy(self), self.preparation
        same.transform = eval_transform(self.augment, ready.size, mean=ready.mean, std=ready.std)
        return same

    def name(self, index: int) -> str:
        """The file or place that image `index` comes from, for messages."""
        return self.source.name(self._at(index))

    def fingerprint(self) -> str:
        """32 hexadecimal digits that change when images, labels, classes or the subset change."""
        digest = hashlib.blake2b(self.source.fingerprint().encode(), digest_size=16)
        digest.update("\0".join(self.classes).encode())
        digest.update(b"" if self.indices is None else self.indices.tobytes())
        return digest.hexdigest()

    def class_counts(self) -> dict[str, int]:
        """Images per class."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def _at(self, index: int) -> int:
        return index if self.indices is None else int(self.indices[index])


def per_channel(what: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Values of the channels that images have, of a mean or a deviation that was given for 1 or 3.

    Raises `ConfigError` for any other number of them.
    """
    if len(values) == 1:
        return values * channels
    if channels == 1 and len(values) == 3:
        return (sum(values) / 3,)
    if len(values) != channels:
        raise ConfigError(f"{what}={values}: the images have {channels} channels.")
    return values


def to_channels(image: Tensor, channels: int) -> Tensor:
    """uint8 [1 or 3, H, W] as [channels, H, W]: grey is repeated, colour becomes luma (BT.601)."""
    have = image.shape[0]
    if have == channels:
        return image
    if have == 1:
        return image.expand(channels, -1, -1)
    weights = torch.tensor([299, 587, 114], dtype=torch.int32).view(3, 1, 1)
    return ((image.int() * weights).sum(0, keepdim=True).add_(500) // 1000).to(torch.uint8)


def drop_skipped(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """Take the skipped samples out of a batch [N, C, H, W], [N]; also returns how many.

    >>> images, labels, skipped = drop_skipped(torch.zeros(3, 1, 4, 4), torch.tensor([2, -100, 0]))
    >>> labels.tolist(), len(images), skipped
    ([2, 0], 2, 1)
    """
    keep = labels != SKIPPED
    skipped = int((~keep).sum())
    return (images[keep], labels[keep], skipped) if skipped else (images, labels, 0)


def choose_subset(labels: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """`size` of the images, classes as even as they allow, always the same ones, in order.

    >>> choose_subset(np.array([0, 0, 0, 0, 1, 1]), 4).size
    4
    """
    if size < 1:
        raise ConfigError(f"subset={size}: ask for at least one image.")
    order = np.random.default_rng(derive_seed("subset")).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[by_class]
    first = np.searchsorted(sorted_labels, sorted_labels)
    turn = np.arange(len(labels)) - first  # the how-manyeth of its class
    chosen = by_class[np.argsort(turn, kind="stable")[:size]]
    chosen.sort()
    return chosen.astype(np.int64)
