"""What changes during a run, beside weights and optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlawrap.train.loop.step import Stepper


@dataclass
class Position:
    """Where a run is: `step` of `epoch` comes next; both count from 0."""

    epoch: int = 0
    step: int = 0


@dataclass
class Standing:
    """The best epoch so far, the last one, and how many epochs brought no better one.

    anew: the next epoch is the best one whatever its figures, as the run monitors another figure.
    """

    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    stale: int = 0
    anew: bool = False


@dataclass
class Sums:
    """Loss, what the task logs, and images: of the epoch and since the last line of metrics."""

    epoch: list[float]
    interval: list[float]

    @classmethod
    def zero(cls, stepper: Stepper) -> Sums:
        """Nothing counted yet."""
        nothing = [0.0] * len(stepper.sums_so_far())
        return cls(epoch=nothing, interval=list(nothing))

    def take(self, stepper: Stepper) -> None:
        """Move what the stepper has counted to both."""
        values = stepper.take_sums()
        self.epoch = [a + b for a, b in zip(self.epoch, values, strict=True)]
        self.interval = [a + b for a, b in zip(self.interval, values, strict=True)]


@dataclass
class State:
    """All that changes during a run, beside weights and optimiser."""

    sums: Sums
    position: Position = field(default_factory=Position)
    standing: Standing = field(default_factory=Standing)
