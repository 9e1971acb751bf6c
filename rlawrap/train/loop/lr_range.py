"""The learning-rate range test: a short training whose rate grows, to see which rates are of use.

Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from rlawrap.errors import ConfigError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.loader import Batch
from rlawrap.train.data.seeding import derive_seed
from rlawrap.train.loop.setup import Equipment, ImagePair, kernels, set_up
from rlawrap.train.process.processes import join_processes
from rlawrap.train.tasks.find import resolved

#: The test ends when the smoothed loss is so many times its least value.
DIVERGED = 4.0
#: Weight of what was before in the smoothed loss.
SMOOTHING = 0.9
#: The share of steps at the start that the suggestion does not look at.
SETTLING = 0.1


@dataclass(frozen=True, kw_only=True)
class Point:
    """A step: its learning rate, its loss, and the loss smoothed over the steps before."""

    lr: float
    loss: float
    smoothed: float


def lr_range(
    config: TrainConfig,
    *,
    start: float = 1e-5,
    end: float = 10.0,
    steps: int = 100,
    data: ImagePair | None = None,
    after_step: Callable[[Point], None] | None = None,
) -> list[Point]:
    """Train for `steps` steps with rates that grow by the same factor from `start` to `end`.

    Ends early when the loss grows beyond all measure. Network, images, batch and optimiser are the
    config's; nothing is written, and the weights are dropped. Raises `ConfigError` for a range that
    is none, or within many processes.
    """
    if not 0 < start < end or steps < 2:
        raise ConfigError(
            f"lr-find from {start:g} to {end:g} in {steps} steps: give a range above 0, its low "
            "end first, and at least 2 steps."
        )
    config = resolved(config.replace(ema=0.0, ema_every=1, resume=None, change=()))
    with ExitStack() as stack:
        processes = stack.enter_context(join_processes(config.device, config.timeout))
        if processes.world > 1:
            raise ConfigError("lr-find runs in one process; --accumulate cuts a large batch.")
        devices = [processes.device] if processes.device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(kernels(config, processes.device))
        equipment = set_up(config, processes, data)
        stack.callback(equipment.close)
        points: list[Point] = []
        for point in _points(config, equipment, start, (end / start) ** (1 / (steps - 1))):
            if not math.isfinite(point.loss):
                break
            points.append(point)
            if after_step is not None:
                after_step(point)
            least = min(each.smoothed for each in points)
            if len(points) == steps or point.smoothed > DIVERGED * least:
                break
        return points


def _points(
    config: TrainConfig, equipment: Equipment, start: float, factor: float
) -> Iterator[Point]:
    """Steps without end, over as many epochs as they take."""
    stepper, smoothed = equipment.stepper, 0.0
    equipment.train_mode()
    step = 0
    for batch in _batches(equipment):
        if stepper.between_steps:
            torch.manual_seed(derive_seed("step", config.seed, step, 0))
        lr = start * factor**step
        stepper.part(batch, step, lr)
        if not batch.last:
            continue
        loss, *_, count = stepper.take_sums()
        loss /= max(count, 1)
        smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss
        step += 1
        yield Point(lr=lr, loss=loss, smoothed=smoothed / (1 - SMOOTHING**step))


def _batches(equipment: Equipment) -> Iterator[Batch]:
    epoch = 0
    while True:
        equipment.sampler.at(epoch=epoch, step=0)
        yield from equipment.train_loader
        epoch += 1


def suggest(points: Sequence[Point]) -> float | None:
    """The rate at which the smoothed loss falls the fastest, over the logarithm of the rate.

    None when it never falls. The first tenth, in which the loss settles, does not count, nor what
    comes behind the least loss.

    >>> losses = [2.0, 2.0, 1.9, 1.2, 1.0, 3.0]
    >>> rates = [Point(lr=10.0**n, loss=x, smoothed=x) for n, x in enumerate(losses)]
    >>> suggest(rates)
    100.0
    """
    if not points:
        return None
    least = min(range(len(points)), key=lambda n: points[n].smoothed)
    begin = max(1, round(SETTLING * len(points)))
    slopes = {
        n: (points[n + 1].smoothed - points[n].smoothed) / math.log(points[n + 1].lr / points[n].lr)
        for n in range(begin, least)
    }
    steepest = min(slopes, key=lambda n: slopes[n], default=None)
    return None if steepest is None or slopes[steepest] >= 0 else points[steepest].lr
