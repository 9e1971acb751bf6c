"""`metrics.jsonl` of a run, and its TensorBoard events: a line for every interval and epoch."""

from __future__ import annotations

import os
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO

from rlawrap.errors import RLAError
from rlawrap.train.store.json_files import json_text
from rlawrap.train.store.run_folder import RunFolder, writing

#: Fields of a metrics line that depend on the clock; all others repeat bit for bit.
CLOCK_FIELDS = frozenset({"seconds", "images_per_s", "data_wait"})


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
