"""Watching over a run: it stops when its losses, its weights or its images are of no use."""

from __future__ import annotations

from typing import NoReturn

from rlawrap.errors import DataError, TrainError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.loop.state import Keeper, Position
from rlawrap.train.loop.step import Stepper
from rlawrap.train.process.processes import Processes
from rlawrap.train.store import checkpoint

#: So many steps in a row without a usable image, and a run stops within an epoch, too.
HOPELESS_STEPS = 10


class Watch:
    """Raises the errors that end a run which would only go on in vain.

    Steps are optimiser steps of the whole run, counted from 0; an epoch has `steps` of them.
    """

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes,
        stepper: Stepper,
        keeper: Keeper,
        steps: int,
    ) -> None:
        self.config = config
        self.processes = processes
        self.stepper = stepper
        self.keeper = keeper
        self.steps = steps

    def bad_steps(self) -> list[int]:
        """The first step whose loss was not finite and the first absurd one, plus 1; 0: none."""
        return [int(self.stepper.bad_step) + 1, int(self.stepper.sanity.bad_step) + 1]

    def known_bad_steps(self) -> list[int]:
        """`bad_steps` where asking costs nothing, or none."""
        return self.bad_steps() if self.processes.device.type == "cpu" else [0, 0]

    def steps_taken(self) -> None:
        """Raise `TrainError` when a step was bad. All processes call it."""
        self.judge_steps(*self.processes.agree(self.bad_steps()))

    def steps_and_weights(self, taken: int) -> None:
        """Raise `TrainError` when a step was bad or a weight is, `taken` steps done."""
        *bad, bad_weight = self.processes.agree(
            [*self.bad_steps(), int(not self.stepper.weights_are_finite())]
        )
        self.judge_steps(*bad)
        if bad_weight:
            self._stop("weights are not finite (NaN or infinite) after", taken - 1, taken)

    def judge_steps(self, bad_loss: int, absurd: int) -> None:
        """Raise the error for the first of the `bad_steps` that all processes agreed on."""
        if bad_loss and not 0 < absurd < bad_loss:
            self._stop("loss is not finite (NaN or infinite) at", bad_loss - 1, bad_loss)
        if absurd:
            self._stop(self.stepper.sanity.words(), absurd - 1, absurd)

    def bad_test_loss(self, taken: int) -> NoReturn:
        """Raise the error for a network that was judged after `taken` steps."""
        self._stop("test loss is not finite (NaN or infinite) after", taken - 1, taken)

    def images(self, usable: int, position: Position, *, steps: int | None = None) -> None:
        """Raise `DataError` when no image of the epoch, or of the last `steps`, could be used."""
        if usable or (steps is not None and steps < HOPELESS_STEPS):
            return
        raise DataError(
            f"{self.config.data}: no image could be used up to step {position.step} of epoch "
            f"{position.epoch + 1}, all of them are broken. Look at the data; "
            "--on-bad-image fatal names the first one."
        )

    def _stop(self, what: str, step: int, good_before: int) -> NoReturn:
        """Checkpoints of fewer than `good_before` steps are good."""
        own = checkpoint.saved(self.keeper.folder.checkpoints)
        good = [s.path for s in own if s.epoch * self.steps + s.step < good_before]
        newest = good[0] if good else None if own else self.keeper.newest
        raise TrainError(
            f"the {what} step {step % self.steps} of epoch {step // self.steps + 1}. "
            + (f"The last good checkpoint is {newest}. " if newest else "No checkpoint is there. ")
            + "Try a smaller --lr, a warm-up or --clip, and look for batches of images that are "
            "all alike."
        )
