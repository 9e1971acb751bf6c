"""Standard output and error that may close or be full: what is said there never ends the work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rlawrap.errors import RLAError


class Steady:
    """A text stream that drops what it cannot write: its reader is gone, the disk or pipe is full.

    Each write is tried anew. What the encoding lacks is escaped. Everything else is the stream's.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write as much as possible; the length of the text, whatever became of it."""
        if self._stream is not None:
            with suppress(OSError, ValueError):  # ValueError: it was closed
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    encoding = getattr(self._stream, "encoding", None) or "ascii"
                    self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def steady(stream: TextIO | None) -> TextIO:
    """The stream as a `Steady` one."""
    return stream if isinstance(stream, Steady) else cast(TextIO, Steady(stream))


@contextmanager
def steady_output() -> Iterator[None]:
    """Make standard output and error `Steady` in this block, for commands whose work goes on.

    Afterwards what a stream could not get rid of is thrown away, or Python would fail to flush it
    as it ends, and exit with another code.
    """
    _open_missing()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(steady, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _let_go(stream)


@contextmanager
def results_on_screen() -> Iterator[None]:
    """Print results in this block. Raises `RLAError` when standard output does not take them.

    A reader that has gone away is left to `typer`, which ends quietly.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _let_go(sys.stdout)
        raise RLAError(
            f"standard output: cannot be written ({error.strerror}). Make room, or send it to "
            "another place."
        ) from error


def complain(text: str) -> None:
    """Print an error on standard error, if there is one that takes it."""
    print(text, file=steady(sys.stderr), flush=True)
    _let_go(sys.stderr)


def _open_missing() -> None:
    """Point standard descriptors that are closed at nothing.

    The next file to be opened would get such a number, and what C code prints would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def _let_go(stream: TextIO | None) -> None:
    """Flush a stream; where that fails, point its descriptor at nothing and drop what it holds."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError, AttributeError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
            stream.flush()
