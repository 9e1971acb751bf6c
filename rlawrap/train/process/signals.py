"""Signals: those that ask a run to save and stop, and one that comes when the parent dies."""

from __future__ import annotations

import ctypes
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: By these terminals, shells and schedulers ask a process to end, and without a handler it would
#: end at once: a terminal that closes, Ctrl-C, Ctrl-\\, `kill`, a time limit (XCPU; USR1 and USR2
#: by what was agreed with the scheduler).
STOP_SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU")

#: A Ctrl-C reaches a process from the terminal and again from torchrun; only one that comes this
#: many seconds after the first is a second one.
SECOND_AFTER = 1.0

#: A scheduler, too, may send SIGTERM to torchrun and to its processes, which pass it on; on a busy
#: machine that takes longer. So may a terminal that closes.
SECOND_SIGTERM_AFTER = 10.0


def heeded_signals() -> list[signal.Signals]:
    """The stop signals that are not ignored: `nohup` and `trap ''` have a process ignore some."""
    found = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    return [number for number in found if signal.getsignal(number) is not signal.SIG_IGN]


class StopRequest:
    """Set by a stop signal; a later Ctrl-C, SIGTERM or SIGHUP ends the process at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.since = 0.0

    def __bool__(self) -> bool:
        return self.signal is not None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        now = time.monotonic()
        if self.signal and now - self.since > _patience(number):
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal, self.since = signal.Signals(number), now


def _patience(number: int) -> float:
    """Seconds after the first signal from which on this one is a second one."""
    name = signal.Signals(number).name
    if name in ("SIGINT", "SIGQUIT"):
        return SECOND_AFTER
    return SECOND_SIGTERM_AFTER if name in ("SIGTERM", "SIGHUP") else math.inf


@contextmanager
def handle_stop_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call the handler for stop signals in this block; the handlers from before come back after it.

    Signals that are ignored stay so. Outside the main thread, where Python cannot set handlers,
    nothing is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in heeded_signals()}
    try:
        yield
    finally:
        for number, old in before.items():
            # None: a handler that was not set by Python, which it cannot set again.
            signal.signal(number, signal.SIG_DFL if old is None else old)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Collect stop signals in this block, in the main thread."""
    request = StopRequest()
    with handle_stop_signals(request.receive):
        yield request


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask Linux to end this process when its parent ends; elsewhere do nothing."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(signal_number))
