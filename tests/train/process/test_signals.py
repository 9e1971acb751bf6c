from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from rlawrap import _torch
from rlawrap.train.process import signals
from rlawrap.train.process.signals import heeded_signals, stop_on_signals

STOPPING = [getattr(signal, name) for name in signals.STOP_SIGNALS]


@pytest.mark.parametrize("number", STOPPING)
def test_signals_are_collected_and_handlers_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as request:
        assert not request
        os.kill(os.getpid(), number)
        assert request and request.signal == number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", STOPPING)
def test_what_is_ignored_stays_so(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)  # as nohup does with SIGHUP
    try:
        with stop_on_signals() as request:
            os.kill(os.getpid(), number)
            assert not request and number not in heeded_signals()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_torchrun_of_old_keeps_ignoring_what_was_ignored() -> None:
    class Context:
        """Starts processes as torchrun did before 2.10, with handlers set right before."""

        def _start(self) -> Any:
            return signal.getsignal(signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _torch._keep_ignoring(Context)
        signal.signal(signal.SIGHUP, lambda *_: None)
        Context()._start()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_later_second_sigterm_ends_at_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_on_signals() as request:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        assert request and request.signal == signal.SIGUSR1
        monkeypatch.setattr(signals, "SECOND_SIGTERM_AFTER", -1.0)
        os.kill(os.getpid(), signal.SIGUSR1)
        for number in (signal.SIGTERM, signal.SIGHUP):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)


def test_only_a_later_second_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_on_signals() as request:
        for _ in range(2):  # torchrun repeats what the terminal has sent
            os.kill(os.getpid(), signal.SIGINT)
        assert request
        monkeypatch.setattr(signals, "SECOND_AFTER", -1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
