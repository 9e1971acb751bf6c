"""Signals: those that ask a run to save and stop, and one that comes when the parent dies."""

from __future__ import annotations

import ctypes
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: A Ctrl-C reaches a process from the terminal and again from torchrun; only one that comes this
#: many seconds after the first is a second one.
SECOND_AFTER = 1.0

#: A scheduler, too, may send SIGTERM to torchrun and to its processes, which pass it on; on a busy
#: machine that takes longer.
SECOND_SIGTERM_AFTER = 10.0


class StopRequest:
    """Set by SIGTERM, SIGUSR1 or Ctrl-C; a later Ctrl-C or SIGTERM ends the process at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.since = 0.0

    def __bool__(self) -> bool:
        return self.signal is not None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        now = time.monotonic()
        patience = {int(signal.SIGINT): SECOND_AFTER, int(signal.SIGTERM): SECOND_SIGTERM_AFTER}
        if self.signal and now - self.since > patience.get(number, math.inf):
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal, self.since = signal.Signals(number), now


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Collect stop signals in this block; the handlers from before come back after it.

    Outside the main thread, where Python cannot set handlers, nothing is collected.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    names = [name for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), request.receive) for name in names}
    try:
        yield request
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask Linux to end this process when its parent ends; elsewhere do nothing."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(signal_number))
