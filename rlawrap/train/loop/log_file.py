"""`log.txt` of a run: all that it says and shows, with the time, for who was not there."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from rlawrap.train.loop.progress import Display


class LoggedDisplay:
    """Passes everything on to a display, and writes it to a file once there is one.

    A log that cannot be written ends no run: metrics and checkpoints do.
    """

    def __init__(self, display: Display) -> None:
        self.display = display
        self.waiting: list[str] = []
        self.file: TextIO | None = None
        self.title = ""
        self.done = self.total = 0

    def open(self, path: Path) -> None:
        """Append to this file from now on, what was said before included."""
        with suppress(OSError):
            self.file = path.open("a", encoding="utf-8", errors="backslashreplace")
        for line in self.waiting:
            self._write(line)
        self.waiting = []

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            with suppress(OSError):
                self.file.close()
            self.file = None

    def note(self, text: str) -> None:
        """Write a line that is shown elsewhere already, such as an error."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}"
        if self.file is None:
            self.waiting.append(line)
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        if self.file is not None:
            with suppress(OSError):
                self.file.write(line + "\n")
                self.file.flush()

    def say(self, text: str) -> None:
        self.note(text)
        self.display.say(text)

    def begin(self, title: str, done: int, total: int) -> None:
        self.title, self.done, self.total = title, done, total
        self.display.begin(title, done, total)

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        self.display.advance(steps)

    def show(self, text: str) -> None:
        self.note(f"{self.title}  step {self.done}/{self.total}  {text}")
        self.display.show(text)

    def end(self) -> None:
        self.display.end()
