"""The run folder: what is in it, and how it is written.

config.json       the `TrainConfig`
status.json       "running", "stopped", "finished" or "failed", where, and a message
metrics.jsonl     a line every `log_every` steps (kind "train") and every epoch (kind "eval")
checkpoints/      see `rlawrap.train.checkpoint`
best.pt           the best checkpoint, and best.json: its name, epoch and figures
confusion/        the confusion matrix of each epoch as CSV: rows true, columns predicted
tensorboard/      events, if asked for
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from torch import Tensor

from rlawrap.errors import CheckpointError, RLAError, TrainError
from rlawrap.train import checkpoint
from rlawrap.train.checkpoint import BEST, BEST_JSON, CHECKPOINTS
from rlawrap.train.config import TrainConfig

#: Fields of a metrics line that depend on the clock; all others repeat bit for bit.
CLOCK_FIELDS = frozenset({"seconds", "images_per_s", "data_wait"})

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
        self.metrics_file = self.path / "metrics.jsonl"
        self.best_file = self.path / BEST_JSON
        self.best_checkpoint = self.path / BEST
        self.checkpoints = self.path / CHECKPOINTS
        self.confusion = self.path / "confusion"
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
            values = json.loads(self.config_file.read_text())
            if not isinstance(values, dict):
                raise ValueError("JSON, but not an object")
        except (OSError, ValueError) as error:
            for path in (
                *(s.path for s in checkpoint.saved(self.checkpoints)),
                self.best_checkpoint,
            ):
                with contextlib.suppress(CheckpointError):
                    return dict(checkpoint.read(path)["config"])
            if self.has_begun():
                raise TrainError(
                    f"{self.config_file}: cannot be read ({error}), and no checkpoint "
                    "is there that holds it. Choose another --output, or delete the folder."
                ) from error
            return None
        return values

    def has_begun(self) -> bool:
        """Whether a line of metrics is there."""
        return self.metrics_file.is_file() and self.metrics_file.stat().st_size > 0

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty when there is none."""
        try:
            status = json.loads(self.status_file.read_text())
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}

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
        """One CSV file per epoch; the first column names the true class."""
        path = self.confusion / f"epoch{epoch:04d}.csv"
        with writing(path):
            self._write_confusion(path, matrix, classes)

    def _write_confusion(self, path: Path, matrix: Tensor, classes: tuple[str, ...]) -> None:
        self.confusion.mkdir(exist_ok=True)
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["true \\ predicted", *classes])
            for name, row in zip(classes, matrix.tolist(), strict=True):
                table.writerow([name, *row])


def json_text(values: dict[str, Any]) -> str:
    """One line of JSON. It has no word for NaN and infinity, which become null.

    >>> json_text({"loss": float("nan"), "top1": 50.0})
    '{"loss": null, "top1": 50.0}'
    """
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return json.dumps(plain, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that it is there as a whole or as it was before."""
    new = path.with_name(path.name + ".new")
    with new.open("w") as file:
        file.write(json.dumps(value, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())  # or a crash of the machine could leave an empty file
    os.replace(new, path)
    checkpoint.sync_folder(path.parent)


class MetricsLog:
    """metrics.jsonl and TensorBoard. On resume, lines written after the checkpoint are cut off.

    size: bytes of metrics.jsonl that the checkpoint knows of; 0 starts a new file.
    folder: None for a process that writes nothing.
    """

    def __init__(
        self, folder: RunFolder | None, *, size: int = 0, step: int = 0, tensorboard: bool = False
    ) -> None:
        self._file: BinaryIO | None = None
        self._events: Any = None
        if folder is None:
            return
        self._path = folder.metrics_file
        with writing(self._path):
            self._file = folder.metrics_file.open("ab")
            if self._file.tell() > size:
                self._file.truncate(size)
                self._file.seek(size)
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise RLAError(
                    "--tensorboard needs the package tensorboard. "
                    "Install it with: pip install 'rlawrap[train]'"
                ) from error
            with writing(folder.tensorboard):
                self._events = SummaryWriter(str(folder.tensorboard), purge_step=step)

    def write(self, kind: str, values: dict[str, Any]) -> None:
        """Append a line; numbers go to TensorBoard as kind/name too."""
        if self._file is None:
            return
        line = json_text({"kind": kind, **values})
        with writing(self._path):
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            if self._events is not None:
                for name, value in values.items():
                    if isinstance(value, (int, float)) and name != "global_step":
                        self._events.add_scalar(f"{kind}/{name}", value, values["global_step"])

    def sync(self) -> int:
        """Bring the lines to the disk; returns the size of the file."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the files; what a full disk did not take was an error when it was written."""
        for file in (self._file, self._events):
            if file is not None:
                with suppress(OSError):
                    file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
