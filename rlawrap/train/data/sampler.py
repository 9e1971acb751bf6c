"""Which images each process sees at each step: a function of (seed, epoch, step), no history.

The order of an epoch is a permutation drawn from (seed, epoch). Step t takes the entries
[t G, (t+1) G) of it, G being the global batch, and the processes cut that piece between them. So
a run can be stopped at any step and continued by another number of processes, and every image of
the epoch is still seen exactly once.

No classifier sees fewer than two different images at once: a norm over 1x1 maps would divide by a
variance of zero, and by its square root once more in each such norm of the backward pass. An image
that an epoch leaves over alone joins the batch before it, and no batch is cut into single images.
Tasks whose networks have no such norms say that they can do with one (`least`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler

from rlawrap.train.config.train_config import MIN_DIFFERENT
from rlawrap.train.data.arranging import arrange, epoch_length
from rlawrap.train.data.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one process loads at once: rows of a batch, the last `padding` of them weightless.

    A part has two images of the batch or more, or, where a process has nothing left to do, padding
    alone: the batch's first two images.

    rows: slots of the data set (see `arranging`), which without repeats are indices.
    batch_rows: images in the whole batch, over all processes.
    lead: slot of the image before the first row, cyclic in the batch; mixup's partner for it.
    last: the optimiser steps after this part.
    """

    epoch: int
    step: int
    rows: tuple[int, ...]
    padding: int
    batch_rows: int
    lead: int
    last: bool = True


def epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: int64 [length], a permutation drawn from (seed, epoch).

    >>> sorted(epoch_order(5, seed=0, epoch=1).tolist())
    [0, 1, 2, 3, 4]
    """
    generator = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
    return torch.randperm(length, generator=generator)


def steps_per_epoch(length: int, batch_size: int, least: int = MIN_DIFFERENT) -> int:
    """Optimiser steps of an epoch; the last one may have a smaller batch, or one image more.

    least: images that a network must see at once.

    >>> [steps_per_epoch(length, batch_size=16) for length in (32, 33, 34)]
    [2, 2, 3]
    """
    full, rest = divmod(length, batch_size)
    joins = full > 0 and 0 < rest < least
    return full + (rest > 0 and not joins)


def batch_of_step(
    order: Tensor, *, step: int, batch_size: int, least: int = MIN_DIFFERENT
) -> list[int]:
    """The images of a step, over all processes. A function of the order's length and the step.

    >>> batch_of_step(torch.arange(9), step=1, batch_size=4)
    [4, 5, 6, 7, 8]
    """
    last = step == steps_per_epoch(len(order), batch_size, least) - 1
    stop = len(order) if last else (step + 1) * batch_size
    rows: list[int] = order[step * batch_size : stop].tolist()
    return rows


def share(length: int, parts: int, part: int) -> tuple[int, int]:
    """Start and stop of piece number `part` when `length` things are cut as evenly as they can be.

    The first pieces are the larger ones, so piece 0 is empty only when there is nothing at all.

    >>> [share(7, 3, part) for part in range(3)]
    [(0, 3), (3, 5), (5, 7)]
    """
    size, rest = divmod(length, parts)
    start = part * size + min(part, rest)
    return start, start + size + (part < rest)


def cut(length: int, parts: int, part: int, least: int = MIN_DIFFERENT) -> tuple[int, int]:
    """`share`, but no piece is smaller than `least`; the last pieces are empty instead.

    >>> [cut(5, 3, part) for part in range(3)]
    [(0, 3), (3, 5), (5, 5)]
    """
    filled = max(1, min(parts, length // least))
    return share(length, filled, part) if part < filled else (length, length)


def largest_part(
    batch_size: int, *, world: int, accumulate: int, least: int = MIN_DIFFERENT
) -> int:
    """Images that a process sees at once in a full batch, at most."""
    own = cut(batch_size, world, 0, least)[1]
    return cut(own, accumulate, 0, least)[1]


def step_parts(
    order: Tensor,
    *,
    epoch: int,
    step: int,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    least: int = MIN_DIFFERENT,
) -> list[Part]:
    """The parts that process `rank` of `world` loads for one optimiser step.

    Every process gets the same number of parts, so that their collectives match; one that has
    no image left gets a part of padding alone.
    """
    batch = batch_of_step(order, step=step, batch_size=batch_size, least=least)
    start, stop = cut(len(batch), world, rank, least)
    count = max(1, min(accumulate, cut(len(batch), world, 0, least)[1] // least))
    parts = []
    for number in range(count):
        first, last = cut(stop - start, count, number, least)
        rows = batch[start + first : start + last]
        padding = max(0, least - len(rows))
        parts.append(
            Part(
                epoch=epoch,
                step=step,
                rows=(*rows, *(batch * least)[:padding]),
                padding=padding,
                batch_rows=len(batch),
                lead=batch[start + first - 1],
                last=number == count - 1,
            )
        )
    return parts


class TrainSampler(Sampler[Part]):
    """The parts of one process from (epoch, step) to the end of the epoch; set `at` first.

    order: the order of an epoch from (seed, epoch), where it is not any permutation. least: images
    that a network must see at once.

    >>> sampler = TrainSampler(10, seed=0, batch_size=4)
    >>> sampler.at(epoch=0, step=1)
    >>> [len(part.rows) for part in sampler]
    [4, 2]
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        repeats: int = 1,
        drop_last: bool = False,
        order: Callable[[int, int], Tensor] | None = None,
        least: int = MIN_DIFFERENT,
    ) -> None:
        self.length = length
        self.seed = seed
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self.accumulate = accumulate
        self.repeats = repeats
        self.drop_last = drop_last
        self.order = order or (lambda seed, epoch: epoch_order(length, seed, epoch))
        self.least = least
        self.at(epoch=0, step=0)

    @property
    def slots(self) -> int:
        """Images of an epoch, copies counted."""
        return epoch_length(self.length, batch_size=self.batch_size, drop_last=self.drop_last)

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return steps_per_epoch(self.slots, self.batch_size, self.least)

    def at(self, *, epoch: int, step: int) -> None:
        """Where the next iteration starts."""
        self.epoch = epoch
        self.step = step

    def __iter__(self) -> Iterator[Part]:
        order = arrange(
            self.order(self.seed, self.epoch),
            batch_size=self.batch_size,
            repeats=self.repeats,
            drop_last=self.drop_last,
        )
        for step in range(self.step, self.steps):
            yield from step_parts(
                order,
                epoch=self.epoch,
                step=step,
                batch_size=self.batch_size,
                rank=self.rank,
                world=self.world,
                accumulate=self.accumulate,
                least=self.least,
            )


class EvalSampler(Sampler[Part]):
    """Every index once over all processes, in order; each process gets as many parts."""

    def __init__(self, length: int, *, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.length = length
        self.batch_size = batch_size
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return math.ceil(self.length / (self.batch_size * self.world))

    def __iter__(self) -> Iterator[Part]:
        start, stop = share(self.length, self.world, self.rank)
        for number in range(len(self)):
            first = min(start + number * self.batch_size, stop)
            rows = range(first, min(first + self.batch_size, stop))
            padding = 0 if rows else 1
            yield Part(
                epoch=0,
                step=number,
                rows=(*rows, *[0] * padding),
                padding=padding,
                batch_rows=len(rows),
                lead=0,
            )
