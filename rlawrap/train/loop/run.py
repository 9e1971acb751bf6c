"""`Run`: a run ready to go on, step by step and epoch by epoch, to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import nn

from rlawrap.errors import LoaderError, RLAError, TrainError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.seeding import derive_seed
from rlawrap.train.loop.judging import Judge, sentence
from rlawrap.train.loop.log_file import LoggedDisplay
from rlawrap.train.loop.opening_lines import opening_lines
from rlawrap.train.loop.profiling import StepProfile
from rlawrap.train.loop.progress import Clock
from rlawrap.train.loop.reporting import interval, means_of
from rlawrap.train.loop.run_state import State, Sums
from rlawrap.train.loop.setup import ImagePair, set_up, warm_up
from rlawrap.train.loop.state import Keeper
from rlawrap.train.loop.watch import Watch
from rlawrap.train.network.optim import learning_rate
from rlawrap.train.process.processes import Processes
from rlawrap.train.process.signals import StopRequest
from rlawrap.train.store.json_files import write_json
from rlawrap.train.store.metrics import MetricsLog
from rlawrap.train.store.resuming import open_folder
from rlawrap.train.store.run_folder import RunFolder, writing

Status = Literal["finished", "stopped"]


class Stop(Exception):
    """A signal asked for an end, and the checkpoint is written."""


class Run:
    """A run ready to go on; `finish` does the rest of it."""

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes,
        folder: RunFolder,
        display: LoggedDisplay,
        request: StopRequest,
        data: ImagePair | None,
        given: nn.Module | None = None,
    ) -> None:
        self.config = config
        self.processes = processes
        self.folder = folder
        self.display = display
        self.request = request
        source = open_folder(config, processes, folder, display.say)
        self.equipment = set_up(config, processes, data, given=given, fill=source is None)
        self.stepper = self.equipment.stepper
        self.steps = self.equipment.steps
        for loader in (self.equipment.train_loader, self.equipment.test_loader):
            loader.while_waiting = self._while_waiting
        self.judge = Judge(config, processes, self.equipment, display, self._after_judged_batch)
        self.keeper = Keeper(config, processes, folder, self.equipment, display.say)
        self.watch = Watch(config, processes, self.stepper, self.keeper, self.steps)
        for line in opening_lines(config, self.equipment, processes):
            display.say(line)
        self.task = self.equipment.task
        new = State(sums=Sums.zero(self.stepper))
        self.state, log_size = self.keeper.resume(source) if source else (new, 0)
        warm_up(self.equipment, config, processes)
        self.last_save = time.monotonic()
        # Only now that everything fits is something written.
        self.log = MetricsLog(None)
        processes.first_does(lambda: self._start_writing(log_size))

    def _start_writing(self, log_size: int) -> None:
        """Write the config and open the metrics, in process 0."""
        folder, config = self.folder, self.config
        folder.create()
        self.display.open(folder.log_file)
        try:
            self.keeper.put_in_order(self.state)
            with writing(folder.config_file):
                write_json(folder.config_file, config.to_dict())
            folder.write_status("running", **asdict(self.position))
            self.log = MetricsLog(
                folder, size=log_size, step=self.global_step, tensorboard=config.tensorboard
            )
            if self.keeper.resumed is not None and self.keeper.resumed.changes:
                changes = self.keeper.resumed.changes
                values = {**asdict(self.position), "global_step": self.global_step}
                self.log.write("change", {**values, "changes": changes})
        except RLAError as error:
            self.note_failure(error)
            raise

    def note_failure(self, error: Exception) -> None:
        """Say in status.json that the run has failed."""
        message = str(error) if isinstance(error, RLAError) else repr(error)
        if not self.processes.first:
            message = f"process {self.processes.rank}: {message}"
        self.display.note(f"failed: {message}")
        self.folder.write_status("failed", **asdict(self.position), message=message)

    @property
    def position(self) -> Any:
        """The epoch and step that come next."""
        return self.state.position

    @property
    def global_step(self) -> int:
        """Optimiser steps taken."""
        return int(self.position.epoch * self.steps + self.position.step)

    def finish(self) -> tuple[Status, str]:
        """Train to the end, or until a signal comes; returns how it ended, and words for it."""
        status: Status = "finished"
        self.keeper.settle(self.state, self.log.sync)
        try:
            with self._profile() as self.after_step:
                while self.position.epoch < self.config.epochs and not self._out_of_patience():
                    self._train_epoch()
                    self._end_epoch()
        except Stop:
            status = "stopped"
        message = self._last_words(status)
        if self.processes.first:
            best = self.state.standing.best
            self.folder.write_status(status, **asdict(self.position), best=best, message=message)
            self.display.say(message)
        return status, message

    def _last_words(self, status: Status) -> str:
        best = self.state.standing.best
        if status == "stopped":
            return f"stopped; resume with --output {self.folder.path} --resume auto"
        if best is None:
            return "finished"
        metric = self.config.monitor or self.task.metric
        value = self.task.show(metric, best[self.judge.deciding(metric)])
        message = f"finished: best {metric} {value} at epoch {best['epoch'] + 1}"
        if self._out_of_patience():
            message += f", no better one in {self.state.standing.stale} epochs"
        return f"{message}, in {self.folder.best_checkpoint}"

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.state.standing.stale >= patience

    @contextmanager
    def _profile(self) -> Iterator[Callable[[], None]]:
        """What to call after each step, so that a profile is written if one was asked for."""
        if not (self.config.profile and self.processes.first):
            yield lambda: None
            return
        device = self.processes.device
        with StepProfile(self.folder.profile, device, self.display.say) as profile:
            yield profile.step

    # Training

    def _train_epoch(self) -> None:
        position = self.position
        if position.step >= self.steps:
            return  # it was stopped while judging
        self.equipment.train_mode()
        self.equipment.sampler.at(epoch=position.epoch, step=position.step)
        batches = iter(self.equipment.train_loader)
        clock = Clock()
        self.display.begin(self._title(), position.step, self.steps)
        while position.step < self.steps:
            self.train_step(batches, clock)
            self.after_step()

    def _title(self) -> str:
        return f"epoch {self.position.epoch + 1}/{self.config.epochs}"

    def train_step(self, batches: Iterator[Any], clock: Clock) -> None:
        """Take one optimiser step, and do what is due after it: log, save, stop."""
        config, position, step = self.config, self.position, self.global_step
        agreement = self.processes.start_agreement(
            [int(bool(self.request)), int(self._time_to_save()), *self.watch.known()]
        )
        # What a dropout draws depends on the step alone, not on what was drawn before.
        torch.manual_seed(derive_seed("step", config.seed, step, self.processes.rank))
        lr = learning_rate(config, step, self.steps)
        last = False
        while not last:
            asked = time.perf_counter()
            with self._saving_when_loaders_fail():
                batch = next(batches)
            clock.waiting(time.perf_counter() - asked)
            self.stepper.part(batch, step, lr)
            last = batch.last
        position.step += 1
        self.display.advance()
        stop, save, *bad = agreement.wait()
        self.watch.heed(bad)
        if position.step % config.log_every == 0 or position.step == self.steps:
            self._log_interval(clock)
        due = config.save_every and self.global_step % config.save_every == 0
        if stop or save or due:
            self._save()
        if stop:
            raise Stop

    def _while_waiting(self) -> None:
        """Stop here, when asked to, rather than wait for a batch that may never come.

        With several processes the others are within the step and would wait in vain; half a step
        (its first parts, with `accumulate`) cannot be saved.
        """
        if self.request and self.processes.world == 1 and self.stepper.between_steps:
            self._save()
            raise Stop

    @contextmanager
    def _saving_when_loaders_fail(self) -> Iterator[None]:
        """Save before a `LoaderError` ends the run: it came between two steps, so nothing is lost.

        What `_while_waiting` says of several processes and of half a step holds here as well.
        """
        try:
            yield
        except LoaderError as error:
            if self.processes.world > 1 or not self.stepper.between_steps:
                raise
            self.equipment.close()  # what they hold of open files and memory may be what lacks
            try:
                self._save()
            except TrainError as unsaved:
                raise LoaderError(f"{error} The run is not saved: {unsaved}") from error
            raise LoaderError(
                f"{error} All that was done is saved in {self.keeper.newest}; go on with "
                "--resume auto."
            ) from error

    def _time_to_save(self) -> bool:
        minutes = self.config.save_minutes
        return minutes is not None and time.monotonic() - self.last_save > 60 * minutes

    def _save(self, *, best: bool = False) -> None:
        self.watch.steps_and_weights(self.global_step)
        self.keeper.save(self.state, metrics_size=self.log.sync, best=best)
        self.last_save = time.monotonic()

    def _log_interval(self, clock: Clock) -> None:
        self.watch.steps_taken()
        sums = self.state.sums
        sums.take(self.stepper)
        means, images = means_of(self.task, self.processes, sums.interval)
        sums.interval = Sums.zero(self.stepper).interval
        since = min(self.position.step, self.config.log_every)
        self.watch.images(images, self.position, steps=since)
        values, text = interval(
            self.task, self.position, means, images, clock.lap(images),
            step=self.global_step, steps=self.steps,
        )  # fmt: skip
        self.processes.first_does(lambda: self.log.write("train", values))
        self.display.show(text)

    # Judging

    def _end_epoch(self) -> None:
        position, standing = self.position, self.state.standing
        means, images = means_of(self.task, self.processes, self.state.sums.epoch)
        self.watch.images(images, position)
        figures: dict[str, Any] = {
            "epoch": position.epoch,
            "global_step": self.global_step,
            "lr": learning_rate(self.config, self.global_step - 1, self.steps),
            **{f"train_{name}": value for name, value in means.items()},
        }
        if images < self.equipment.sampler.slots:
            figures["skipped"] = self.equipment.sampler.slots - images
        began = time.perf_counter()
        with self._saving_when_loaders_fail():
            judged = self.judge.judge(self._title())
        figures.update(judged.figures)
        if not judged.finite:
            # Before anything is logged, saved or called the best.
            self.watch.bad_test_loss(self.global_step)
        better = standing.anew or self.judge.is_better(figures, standing.best)
        standing.last = figures
        standing.stale = 0 if better else standing.stale + 1
        if better:
            standing.best, standing.anew = figures, False
        seconds = round(time.perf_counter() - began, 3)
        self.processes.first_does(lambda: self.log.write("eval", {**figures, "seconds": seconds}))
        classes = self.equipment.classes
        if (matrix := judged.confusion) is not None:
            self.processes.first_does(
                lambda: self.folder.write_confusion(position.epoch, matrix, classes)
            )
        self.display.say(sentence(self.task, self._title(), figures))
        position.epoch += 1
        position.step = 0
        self.state.sums = Sums.zero(self.stepper)
        self._save(best=better)

    def _after_judged_batch(self) -> None:
        if self.processes.agree([int(bool(self.request))])[0]:
            self._save()
            raise Stop
