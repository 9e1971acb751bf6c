"""`train`: a whole run, from a `TrainConfig` to a run folder, on one process or many.

Start it in one process by calling it, in many with torchrun. Whatever it does next is a function
of the checkpoint and the config, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rlawrap.errors import RLAError
from rlawrap.train.config import TrainConfig
from rlawrap.train.data.seeding import derive_seed
from rlawrap.train.judging import Judge, sentence
from rlawrap.train.lock import hold_folder
from rlawrap.train.optim import learning_rate
from rlawrap.train.processes import Processes, join_processes
from rlawrap.train.progress import Clock, Display, duration, open_display
from rlawrap.train.resuming import open_folder
from rlawrap.train.runlog import MetricsLog, RunFolder, write_json, writing
from rlawrap.train.setup import ImagePair, kernels, set_up, warm_up
from rlawrap.train.state import Keeper, State, Sums
from rlawrap.train.stopping import StopRequest, stop_on_signals
from rlawrap.train.watch import Watch

Status = Literal["finished", "stopped"]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    status: "finished" or "stopped" (by a signal; go on with resume="auto").
    epoch, step: what would come next, counted from 0.
    best: figures of the best epoch; last: those of the last one. None before the first.
    """

    status: Status
    output: Path
    epoch: int
    step: int
    best: dict[str, Any] | None
    last: dict[str, Any] | None
    message: str


def train(config: TrainConfig, *, data: ImagePair | None = None) -> TrainResult:
    """Train a network as the config says; returns when the run is finished or stopped.

    data: training and test images, instead of those that `config.data` names.
    Raises `ConfigError`, `DataError`, `CheckpointError` or `TrainError`; what was written before
    stays whole. The global random state is left alone.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(join_processes(config.device, config.timeout))
        devices = [processes.device] if processes.device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(kernels(config, processes.device))
        display = stack.enter_context(open_display(config.progress, first=processes.first))
        request = stack.enter_context(stop_on_signals())
        folder = RunFolder(config.output)
        stack.enter_context(hold_folder(folder, processes, display.say, config.timeout))
        run = Run(config, processes, folder, display, request, data)
        stack.callback(run.equipment.close)
        with run.log:
            try:
                return run.finish()
            except RLAError as error:
                if not getattr(error, "told_by_first", False):
                    run.note_failure(error)
                raise
            except Exception as error:
                # With several processes that is a lost one; what it said must not be replaced.
                if processes.world == 1:
                    run.note_failure(error)
                raise


class Stop(Exception):
    """A signal asked for an end, and the checkpoint is written."""


class Run:
    """A run ready to go on; `finish` does the rest of it."""

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes,
        folder: RunFolder,
        display: Display,
        request: StopRequest,
        data: ImagePair | None,
    ) -> None:
        self.config = config
        self.processes = processes
        self.folder = folder
        self.display = display
        self.request = request
        source = open_folder(config, processes, folder, display.say)
        self.equipment = set_up(config, processes, data, fill=source is None)
        self.stepper = self.equipment.stepper
        self.steps = self.equipment.steps
        for loader in (self.equipment.train_loader, self.equipment.test_loader):
            loader.while_waiting = self._while_waiting
        self.judge = Judge(config, processes, self.equipment, display, self._after_judged_batch)
        self.keeper = Keeper(config, processes, folder, self.equipment, display.say)
        self.watch = Watch(config, processes, self.stepper, self.keeper, self.steps)
        self.state, log_size = self.keeper.resume(source) if source else (State(), 0)
        warm_up(self.equipment, config, processes)
        self.last_save = time.monotonic()
        # Only now that everything fits is something written.
        self.log = MetricsLog(None)
        processes.first_does(lambda: self._start_writing(log_size))

    def _start_writing(self, log_size: int) -> None:
        """Write the config and open the metrics, in process 0."""
        folder, config = self.folder, self.config
        folder.create()
        try:
            self.keeper.put_in_order(self.state)
            with writing(folder.config_file):
                write_json(folder.config_file, config.to_dict())
            folder.write_status("running", **asdict(self.position))
            self.log = MetricsLog(
                folder, size=log_size, step=self.global_step, tensorboard=config.tensorboard
            )
        except RLAError as error:
            self.note_failure(error)
            raise

    def note_failure(self, error: Exception) -> None:
        """Say in status.json that the run has failed."""
        message = str(error) if isinstance(error, RLAError) else repr(error)
        if not self.processes.first:
            message = f"process {self.processes.rank}: {message}"
        self.folder.write_status("failed", **asdict(self.position), message=message)

    @property
    def position(self) -> Any:
        """The epoch and step that come next."""
        return self.state.position

    @property
    def global_step(self) -> int:
        """Optimiser steps taken."""
        return int(self.position.epoch * self.steps + self.position.step)

    def finish(self) -> TrainResult:
        """Train from where the run is to its end, or until a signal comes."""
        status: Status = "finished"
        self.keeper.settle(self.state, self.log.sync)
        try:
            while self.position.epoch < self.config.epochs and not self._out_of_patience():
                self._train_epoch()
                self._end_epoch()
        except Stop:
            status = "stopped"
        message = self._last_words(status)
        best = self.state.standing.best
        if self.processes.first:
            self.folder.write_status(status, **asdict(self.position), best=best, message=message)
            self.display.say(message)
        return TrainResult(
            status=status,
            output=self.folder.path,
            epoch=self.position.epoch,
            step=self.position.step,
            best=best,
            last=self.state.standing.last,
            message=message,
        )

    def _last_words(self, status: Status) -> str:
        best = self.state.standing.best
        if status == "stopped":
            return f"stopped; resume with --output {self.folder.path} --resume auto"
        if best is None:
            return "finished"
        name = self.judge.deciding("top1")
        message = f"finished: best top1 {best[name]:.2f}% at epoch {best['epoch'] + 1}"
        if self._out_of_patience():
            message += f", no better one in {self.state.standing.stale} epochs"
        return f"{message}, in {self.folder.best_checkpoint}"

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.state.standing.stale >= patience

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

    def _title(self) -> str:
        return f"epoch {self.position.epoch + 1}/{self.config.epochs}"

    def train_step(self, batches: Iterator[Any], clock: Clock) -> None:
        """Take one optimiser step, and do what is due after it: log, save, stop."""
        config, position, step = self.config, self.position, self.global_step
        agreement = self.processes.start_agreement(
            [int(bool(self.request)), int(self._time_to_save()), self.watch.known_bad_step() + 1]
        )
        # What a dropout draws depends on the step alone, not on what was drawn before.
        torch.manual_seed(derive_seed("step", config.seed, step, self.processes.rank))
        lr = learning_rate(config, step, self.steps)
        last = False
        while not last:
            asked = time.perf_counter()
            batch = next(batches)
            clock.waiting(time.perf_counter() - asked)
            self.stepper.part(batch, step, lr)
            last = batch.last
        position.step += 1
        self.display.advance()
        stop, save, bad = agreement.wait()
        if bad:
            self.watch.bad_loss(bad - 1)
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

    def _time_to_save(self) -> bool:
        minutes = self.config.save_minutes
        return minutes is not None and time.monotonic() - self.last_save > 60 * minutes

    def _save(self, *, best: bool = False) -> None:
        self.watch.losses_and_weights(self.global_step)
        self.keeper.save(self.state, metrics_size=self.log.sync, best=best)
        self.last_save = time.monotonic()

    def _log_interval(self, clock: Clock) -> None:
        self.watch.losses()
        sums = self.state.sums
        sums.take(self.stepper)
        loss, top1, images = self._means(sums.interval)
        sums.interval = [0.0, 0.0, 0.0]
        since = min(self.position.step, self.config.log_every)
        self.watch.images(images, self.position, steps=since)
        seconds, speed, waiting = clock.lap(images)
        lr = learning_rate(self.config, self.global_step - 1, self.steps)
        values = {
            **asdict(self.position),
            "global_step": self.global_step,
            "lr": lr,
            "loss": loss,
            "top1": top1,
            "images": images,
            "seconds": round(seconds, 3),
            "images_per_s": round(speed, 1),
            "data_wait": round(waiting, 4),
        }
        self.processes.first_does(lambda: self.log.write("train", values))
        left = (self.config.epochs * self.steps - self.global_step) * self.config.batch_size
        self.display.show(
            f"loss {loss:.4f}  top1 {top1:.1f}%  lr {lr:.4g}  {speed:.0f} images/s  "
            f"data wait {waiting:.0%}  to go {duration(left / max(speed, 1e-9))}"
        )

    def _means(self, values: list[float]) -> tuple[float, float, int]:
        """Mean loss, per cent correct and images, over all processes."""
        sums = self.processes.gather(values)
        loss, correct, images = (math.fsum(column) for column in zip(*sums, strict=True))
        return loss / max(images, 1), 100 * correct / max(images, 1), int(images)

    # Judging

    def _end_epoch(self) -> None:
        position, standing = self.position, self.state.standing
        loss, top1, images = self._means(self.state.sums.epoch)
        self.watch.images(images, position)
        figures: dict[str, Any] = {
            "epoch": position.epoch,
            "global_step": self.global_step,
            "lr": learning_rate(self.config, self.global_step - 1, self.steps),
            "train_loss": loss,
            "train_top1": top1,
        }
        if images < len(self.equipment.train_images):
            figures["skipped"] = len(self.equipment.train_images) - images
        began = time.perf_counter()
        judged = self.judge.judge(self._title())
        figures.update(judged.figures)
        if not judged.finite:
            # Before anything is logged, saved or called the best.
            self.watch.bad_test_loss(self.global_step)
        better = self.judge.is_better(figures, standing.best)
        standing.last = figures
        standing.stale = 0 if better else standing.stale + 1
        if better:
            standing.best = figures
        seconds = round(time.perf_counter() - began, 3)
        self.processes.first_does(lambda: self.log.write("eval", {**figures, "seconds": seconds}))
        classes = self.equipment.classes
        self.processes.first_does(
            lambda: self.folder.write_confusion(position.epoch, judged.confusion, classes)
        )
        self.display.say(sentence(self._title(), figures))
        position.epoch += 1
        position.step = 0
        self.state.sums = Sums()
        self._save(best=better)

    def _after_judged_batch(self) -> None:
        if self.processes.agree([int(bool(self.request))])[0]:
            self._save()
            raise Stop
