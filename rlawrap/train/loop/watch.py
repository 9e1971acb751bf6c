"""Watching over a run: it stops when its losses, its weights or its images are of no use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from rlawrap.errors import DataError, TrainError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.loop.run_state import Position
from rlawrap.train.loop.state import Keeper
from rlawrap.train.loop.step import Stepper
from rlawrap.train.process.processes import Processes
from rlawrap.train.store import checkpoint

#: More than all steps of a run.
EARLIEST = 2**62
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

    def known(self) -> list[int]:
        """What `heed` takes, where asking costs nothing; nothing is bad elsewhere."""
        return self._found() if self.processes.device.type == "cpu" else [0, 0]

    def heed(self, found: Sequence[int]) -> None:
        """Raise `TrainError` for a step whose loss, gradient or weights were of no use.

        found: what all processes agreed on, of what each one found.
        """
        loss, absurd = found
        # A step whose loss is not finite spoils the weights as well.
        if loss and loss >= absurd:
            step = EARLIEST - loss
            self._stop("loss is not finite (NaN or infinite) at", step, step + 1)
        if absurd:
            step = EARLIEST - absurd
            self._stop(self.stepper.sanity.words(step), step, step + 1)

    def steps_taken(self) -> None:
        """Raise `TrainError` when a step was bad. All processes call it."""
        self.heed(self.processes.agree(self._found()))

    def steps_and_weights(self, taken: int) -> None:
        """Raise it also for weights that no step was seen to spoil, `taken` steps done."""
        *found, bad = self.processes.agree(
            [*self._found(), int(not self.stepper.weights_are_finite())]
        )
        self.heed(found)
        if bad:
            self._stop("weights are not finite (NaN or infinite) after", taken - 1, taken)

    def bad_test_loss(self, taken: int) -> NoReturn:
        """Raise the error for a network that was judged after `taken` steps."""
        self._stop("test loss is not finite (NaN or infinite) after", taken - 1, taken)

    def _found(self) -> list[int]:
        """How early a loss and a step went bad here, 0 if none did; the most is the earliest."""
        steps = (int(self.stepper.bad_loss), int(self.stepper.sanity.bad_step))
        return [0 if step < 0 else EARLIEST - step for step in steps]

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
        """For people steps count from 1. Checkpoints of fewer than `good_before` steps are good."""
        own = checkpoint.saved(self.keeper.folder.checkpoints)
        good = [s.path for s in own if s.epoch * self.steps + s.step < good_before]
        newest = good[0] if good else None if own else self.keeper.newest
        raise TrainError(
            f"the {what} step {step % self.steps + 1} of epoch {step // self.steps + 1}. "
            + (f"The last good checkpoint is {newest}. " if newest else "No checkpoint is there. ")
            + "Try a smaller --lr, a warm-up or --clip, and look for batches of images that are "
            "all alike."
        )
