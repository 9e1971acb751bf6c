"""What an epoch does with its order before it is cut into batches: repeats, and a rest left out.

An order holds *slots*: slot = copy * images + index. Copy 0 of an image is the image as it is
always loaded; further copies are augmented otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlawrap.train.config.train_config import MIN_DIFFERENT


def epoch_length(length: int, *, batch_size: int, drop_last: bool = False) -> int:
    """Slots that an epoch takes of a data set of that length.

    >>> epoch_length(10, batch_size=4), epoch_length(10, batch_size=4, drop_last=True)
    (10, 8)
    """
    return length - length % batch_size if drop_last else length


def arrange(order: Tensor, *, batch_size: int, repeats: int = 1, drop_last: bool = False) -> Tensor:
    """The slots of an epoch, int64, from a permutation of its images.

    repeats: a batch of B holds B / repeats images, in so many copies each (repeated augmentation,
    Hoffer et al. 2020). Images later in the permutation wait for another epoch, which has as many
    steps as without. Copies stand B / repeats rows apart, so that mixup, which takes a row's
    neighbour, mixes different images.

    >>> arrange(torch.tensor([4, 2, 0, 1, 3]), batch_size=4, repeats=2).tolist()
    [4, 2, 9, 7, 0]
    """
    length = len(order)
    total = epoch_length(length, batch_size=batch_size, drop_last=drop_last)
    if repeats == 1:
        return order[:total]
    batches, start = [], 0
    for begin in range(0, total, batch_size):
        rows = min(batch_size, total - begin)
        different = min(rows, max(MIN_DIFFERENT, -(-rows // repeats)))
        images = order[start : start + different]
        start += different
        copies = [images + copy * length for copy in range(-(-rows // different))]
        batches.append(torch.cat(copies)[:rows])
    return torch.cat(batches) if batches else order[:0]


def copy_and_index(slot: int, length: int) -> tuple[int, int]:
    """Which copy of which image a slot is.

    >>> copy_and_index(9, length=5)
    (1, 4)
    """
    return divmod(slot, length)
