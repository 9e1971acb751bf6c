"""The run folder: what is in it, and its small files.

config.json       the `TrainConfig`
status.json       "running", "stopped", "finished" or "failed", where, and a message
log.txt           what the run said and showed, with the time
metrics.jsonl     a line every `log_every` steps (kind "train") and every epoch (kind "eval")
checkpoints/      see `rlawrap.train.store.checkpoint`
best.pt           the best checkpoint, and best.json: its name, epoch and figures
confusion/        the confusion matrix of each epoch, counted from 1, as CSV: rows true, columns
                  predicted
tensorboard/      events, if asked for
profile/          a trace of a few steps and a table of their operations, if asked for
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from rlawrap.errors import CheckpointError, TrainError
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.store import checkpoint
from rlawrap.train.store.checkpoint import BEST, BEST_JSON, CHECKPOINTS
from rlawrap.train.store.json_files import read_json, read_json_if_whole, write_json

_EVALUATION = b'{"kind": "eval"'


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` of this block into a `TrainError`: no room on the disk, no folder."""
    try:
        yield
    except OSError as error:
        raise TrainError(
            f"{path}: cannot be written ({error.strerror or error}). Make room, or see that the "
            "folder is there, and go on with --resume auto."
        ) from error


class RunFolder:
    """Paths of a run and its small files."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.status_file = self.path / "status.json"
        self.log_file = self.path / "log.txt"
        self.metrics_file = self.path / "metrics.jsonl"
        self.best_file = self.path / BEST_JSON
        self.best_checkpoint = self.path / BEST
        self.checkpoints = self.path / CHECKPOINTS
        self.confusion = self.path / "confusion"
        self.profile = self.path / "profile"
        self.tensorboard = self.path / "tensorboard"

    def create(self) -> None:
        """Make the folder and see that it can be written to. Raises `TrainError`."""
        probe = self.path / f".probe-{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise TrainError(
                f"{self.path}: the run folder cannot be written to ({error.strerror}). "
                "Choose another with --output."
            ) from error

    def config(self) -> TrainConfig | None:
        """The configuration of the run in this folder, if there is one."""
        values = self.config_values()
        if values is None:
            return None
        try:
            return TrainConfig.from_dict(values)
        except (ValueError, TypeError) as error:
            raise TrainError(f"{self.config_file}: not a run's configuration ({error}).") from error

    def config_values(self) -> dict[str, Any] | None:
        """The configuration as plain values; a checkpoint's when config.json cannot be read.

        Raises `TrainError` when that is so and no checkpoint has it either.
        """
        if not self.config_file.is_file():
            return None
        try:
            return read_json(self.config_file)
        except (OSError, ValueError) as error:
            for path in (
                *(s.path for s in checkpoint.saved(self.checkpoints)),
                self.best_checkpoint,
            ):
                with suppress(CheckpointError):
                    return dict(checkpoint.read(path)["config"])
            if self.has_begun():
                raise TrainError(
                    f"{self.config_file}: cannot be read ({error}), and no checkpoint "
                    "is there that holds it. Choose another --output, or delete the folder."
                ) from error
            return None

    def has_begun(self) -> bool:
        """Whether a line of metrics is there."""
        return self.metrics_file.is_file() and self.metrics_file.stat().st_size > 0

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty when there is none."""
        return read_json_if_whole(self.status_file) or {}

    def write_status(self, state: str, **values: Any) -> None:
        """Replace status.json; a full disk is no reason to fail here."""
        content = {"state": state, **values}
        try:
            write_json(self.status_file, content)
        except OSError:
            with suppress(OSError):
                self.status_file.with_name(self.status_file.name + ".new").unlink(missing_ok=True)
            # Written over the old one it needs no room on the disk, and an old one would lie.
            with suppress(OSError), self.status_file.open("r+b") as file:
                file.write(json.dumps(content).encode())
                file.truncate()

    def judged_epochs(self) -> int:
        """Epochs that metrics.jsonl has an evaluation of."""
        try:
            with self.metrics_file.open("rb") as file:
                return sum(line.startswith(_EVALUATION) for line in file)
        except OSError:
            return 0

    def size_of_whole_epochs(self, size: int) -> int:
        """Bytes of metrics.jsonl up to the last evaluation within its first `size` bytes."""
        at = end = 0
        if self.metrics_file.is_file():
            for line in self.metrics_file.read_bytes()[:size].splitlines(keepends=True):
                at += len(line)
                end = at if line.startswith(_EVALUATION) else end
        return end

    def write_confusion(self, epoch: int, matrix: Tensor, classes: tuple[str, ...]) -> None:
        """One CSV file per epoch, which counts from 0; its name, for people, counts from 1."""
        path = self.confusion / f"epoch{epoch + 1:04d}.csv"
        with writing(path):
            self._write_confusion(path, matrix, classes)

    def _write_confusion(self, path: Path, matrix: Tensor, classes: tuple[str, ...]) -> None:
        self.confusion.mkdir(exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["true \\ predicted", *classes])
            for name, row in zip(classes, matrix.tolist(), strict=True):
                table.writerow([name, *row])
