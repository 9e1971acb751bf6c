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

    def known_bad_step(self) -> int:
        """The first step whose loss was not finite, where asking costs nothing; or -1."""
        return int(self.stepper.bad_step) if self.processes.device.type == "cpu" else -1

    def losses(self) -> None:
        """Raise `TrainError` when the loss of a step was not finite. All processes call it."""
        (bad,) = self.processes.agree([int(self.stepper.bad_step) + 1])
        if bad:
            self.bad_loss(bad - 1)

    def losses_and_weights(self, taken: int) -> None:
        """Raise `TrainError` when a loss was not finite or a weight is not, `taken` steps done."""
        bad, bad_weight = self.processes.agree(
            [int(self.stepper.bad_step) + 1, int(not self.stepper.weights_are_finite())]
        )
        if bad:
            self.bad_loss(bad - 1)
        if bad_weight:
            self._not_finite("weights are not finite (NaN or infinite) after", taken - 1, taken)

    def bad_loss(self, step: int) -> NoReturn:
        """Raise the error for a step whose loss was not finite."""
        self._not_finite("loss is not finite (NaN or infinite) at", step, step + 1)

    def bad_test_loss(self, taken: int) -> NoReturn:
        """Raise the error for a network that was judged after `taken` steps."""
        self._not_finite("test loss is not finite (NaN or infinite) after", taken - 1, taken)

    def images(self, usable: int, position: Position, *, steps: int | None = None) -> None:
        """Raise `DataError` when no image of the epoch, or of the last `steps`, could be used."""
        if usable or (steps is not None and steps < HOPELESS_STEPS):
            return
        raise DataError(
            f"{self.config.data}: no image could be used up to step {position.step} of epoch "
            f"{position.epoch + 1}, all of them are broken. Look at the data; "
            "--on-bad-image fatal names the first one."
        )

    def _not_finite(self, what: str, step: int, good_before: int) -> NoReturn:
        """Checkpoints of fewer than `good_before` steps are good."""
        own = checkpoint.saved(self.keeper.folder.checkpoints)
        good = [s.path for s in own if s.epoch * self.steps + s.step < good_before]
        newest = good[0] if good else None if own else self.keeper.newest
        raise TrainError(
            f"the {what} step {step % self.steps} of epoch {step // self.steps + 1}. "
            + (f"The last good checkpoint is {newest}. " if newest else "No checkpoint is there. ")
            + "Try a smaller --lr, a warm-up or --clip."
        )
