"""How a run shows itself: a live bar at a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from rlawrap.errors import printable
from rlawrap.streams import steady


class Display(Protocol):
    """What the trainer tells a display. Text may come at any time."""

    def say(self, text: str) -> None: ...

    def begin(self, title: str, done: int, total: int) -> None: ...

    def advance(self, steps: int = 1) -> None: ...

    def show(self, text: str) -> None: ...

    def end(self) -> None: ...


class Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        pass

    def begin(self, title: str, done: int, total: int) -> None:
        pass

    def advance(self, steps: int = 1) -> None:
        pass

    def show(self, text: str) -> None:
        pass

    def end(self) -> None:
        pass


class Plain(Silent):
    """A line per interval, for logs."""

    def __init__(self) -> None:
        self.output = steady(sys.stdout)
        self.title = ""
        self.done = self.total = 0

    def say(self, text: str) -> None:
        print(printable(text), file=self.output, flush=True)

    def begin(self, title: str, done: int, total: int) -> None:
        self.title, self.done, self.total = title, done, total

    def advance(self, steps: int = 1) -> None:
        self.done += steps

    def show(self, text: str) -> None:
        self.say(f"{self.title}  step {self.done}/{self.total}  {text}")


class Bar:
    """A live bar: where the epoch is, and what `show` was last told."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(file=steady(sys.stdout)),
        )
        self.task = self.progress.add_task("", text="", visible=False)
        self.progress.start()

    def say(self, text: str) -> None:
        self.progress.console.print(printable(text), markup=False, highlight=False)

    def begin(self, title: str, done: int, total: int) -> None:
        self.progress.reset(
            self.task, description=title, completed=done, total=total, text="", visible=True
        )

    def advance(self, steps: int = 1) -> None:
        self.progress.advance(self.task, steps)

    def show(self, text: str) -> None:
        self.progress.update(self.task, text=text)

    def end(self) -> None:
        self.progress.update(self.task, visible=False)

    def stop(self) -> None:
        """Leave the terminal as it was, without a bar that says nothing any more."""
        self.end()
        self.progress.stop()


@contextmanager
def open_display(kind: str, *, first: bool) -> Iterator[Display]:
    """The display of this process: `kind` is "auto", "bar", "plain" or "none"."""
    if kind == "none" or not first:
        yield Silent()
    elif kind == "bar" or (kind == "auto" and steady(sys.stdout).isatty()):
        bar = Bar()
        try:
            yield bar
        finally:
            bar.stop()
    else:
        yield Plain()


class Clock:
    """Images per second, the share of time spent waiting for data, and the time still to go."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.images = self.waited = 0.0

    def waiting(self, seconds: float) -> None:
        """Data came after that many seconds."""
        self.waited += seconds

    def lap(self, images: int) -> tuple[float, float, float]:
        """Seconds since the last lap, images per second and waiting share in it."""
        now = time.perf_counter()
        seconds = max(now - self.last, 1e-9)
        share = min(self.waited / seconds, 1.0)
        self.last, self.waited = now, 0.0
        return seconds, images / seconds, share


def duration(seconds: float) -> str:
    """Time for people.

    >>> duration(59), duration(3700), duration(200_000)
    ('59s', '1h01m', '2d07h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h"
