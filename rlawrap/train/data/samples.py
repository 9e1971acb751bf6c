"""Batches of any kind of sample: images with targets of one's own, put together by a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rlawrap.errors import DataError
from rlawrap.train.data.arranging import copy_and_index
from rlawrap.train.data.dataset import SKIPPED
from rlawrap.train.data.loader import Batch
from rlawrap.train.data.sampler import Part
from rlawrap.train.data.seeding import derive_seed

Item = tuple[Tensor, Any]
Collate = Callable[[Sequence[Item]], tuple[Any, Any]]


def stack(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Images and targets of one size each, one above the other.

    >>> images, targets = stack([(torch.zeros(3, 4, 4), 1.5), (torch.zeros(3, 4, 4), 2.5)])
    >>> images.shape, targets
    (torch.Size([2, 3, 4, 4]), tensor([1.5000, 2.5000]))
    """
    images = torch.stack([image for image, _ in items])
    return images, torch.stack([torch.as_tensor(target) for _, target in items])


def is_skipped(target: Any) -> bool:
    """Whether a target marks a damaged image that is to be left out.

    >>> is_skipped(None), is_skipped(SKIPPED), is_skipped(torch.tensor(0))
    (True, True, False)
    """
    return target is None or (isinstance(target, int) and target == SKIPPED)


class Samples(Dataset[Batch]):
    """Loads a `Part` of images whose targets may be anything; a function puts them together.

    Rows that do not count are left out, so that a loss need not know of them. Where none is left,
    the batch has one image of weight 0, for processes must take their steps together.
    """

    def __init__(self, images: Any, collate: Collate, *, seed: int = 0) -> None:
        self.images = images
        self.collate = collate
        self.seed = seed

    def __getitem__(self, part: Part) -> Batch:
        real = part.rows[: len(part.rows) - part.padding]
        items = [self._load(slot, part.epoch) for slot in real]
        good = [item for item in items if not is_skipped(item[1])]
        images, targets = self.collate(good or [self._any(part)])
        return Batch(
            images=images,
            targets=targets,
            weights=torch.ones(len(good)) if good else torch.zeros(1),
            counted=len(good),
            batch_rows=part.batch_rows,
            last=part.last,
            skipped=[
                copy_and_index(slot, len(self.images))[1]
                for slot, item in zip(real, items, strict=True)
                if is_skipped(item[1])
            ],
        )

    def _load(self, slot: int, epoch: int) -> Item:
        copy, index = copy_and_index(slot, len(self.images))
        seed = derive_seed("copy", self.seed, copy) if copy else self.seed
        item: Item = self.images.load(index, seed=seed, epoch=epoch)
        return item

    def _any(self, part: Part) -> Item:
        """The first usable image from the part's own on."""
        first = copy_and_index(part.rows[0], len(self.images))[1]
        for offset in range(len(self.images)):
            item = self._load((first + offset) % len(self.images), part.epoch)
            if not is_skipped(item[1]):
                return item
        raise DataError("no image could be used, all of them are broken. Look at the data.")
