"""`Run`: a run ready to go on, step by step and epoch by epoch, to its end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

import torch

from rlawrap.errors import RLAError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.seeding import derive_seed
from rlawrap.train.loop.judging import Judge, sentence
from rlawrap.train.loop.progress import Clock, Display, duration
from rlawrap.train.loop.setup import ImagePair, set_up, warm_up
from rlawrap.train.loop.state import Keeper, State, Sums
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
        for remark in self.equipment.remarks:
            display.say(f"note: {remark}")
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

    def finish(self) -> tuple[Status, str]:
        """Train to the end, or until a signal comes; returns how it ended, and words for it."""
        status: Status = "finished"
        self.keeper.settle(self.state, self.log.sync)
        try:
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
            [int(bool(self.request)), int(self._time_to_save()), *self.watch.known_bad_steps()]
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
        stop, save, *bad = agreement.wait()
        self.watch.judge_steps(*bad)
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
        self.watch.steps_and_weights(self.global_step)
        self.keeper.save(self.state, metrics_size=self.log.sync, best=best)
        self.last_save = time.monotonic()

    def _log_interval(self, clock: Clock) -> None:
        self.watch.steps_taken()
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
