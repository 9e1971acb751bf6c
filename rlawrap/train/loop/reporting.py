"""The figures of training: means over all processes, a line of metrics, and one for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rlawrap.train.loop.progress import duration
from rlawrap.train.loop.run_state import Position
from rlawrap.train.network.optim import learning_rate
from rlawrap.train.process.processes import Processes
from rlawrap.train.tasks.task import Task


def means_of(
    task: Task, processes: Processes, values: Sequence[float]
) -> tuple[dict[str, float], int]:
    """The figures of training and the images that they are of, over all processes.

    values: the sums of this process, as `Stepper.take_sums` gives them.
    """
    gathered = processes.gather(list(values))
    *sums, images = (math.fsum(column) for column in zip(*gathered, strict=True))
    return task.means(sums, int(images)), int(images)


def interval(
    task: Task,
    position: Position,
    means: Mapping[str, float],
    images: int,
    lap: tuple[float, float, float],
    *,
    step: int,
    steps: int,
) -> tuple[dict[str, Any], str]:
    """A line of kind "train" and what is shown of it, when `step` steps of the run are done.

    lap: seconds, images per second and the share of waiting. steps: those of an epoch.
    """
    config = task.config
    seconds, speed, waiting = lap
    lr = learning_rate(config, step - 1, steps)
    values = {
        **asdict(position),
        "global_step": step,
        "lr": lr,
        **means,
        "images": images,
        "seconds": round(seconds, 3),
        "images_per_s": round(speed, 1),
        "data_wait": round(waiting, 4),
    }
    left = (config.epochs * steps - step) * config.batch_size
    text = (
        f"{task.training_text(means)}  lr {lr:.4g}  {speed:.0f} images/s  "
        f"data wait {waiting:.0%}  to go {duration(left / max(speed, 1e-9))}"
    )
    return values, text
