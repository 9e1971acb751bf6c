from __future__ import annotations

import os
import signal

import pytest

from rlawrap.train.process import signals
from rlawrap.train.process.signals import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_collected_and_handlers_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as request:
        assert not request
        os.kill(os.getpid(), number)
        assert request and request.signal == number
    assert signal.getsignal(number) == before


def test_a_later_second_sigterm_ends_at_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_on_signals() as request:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        assert request and request.signal == signal.SIGUSR1
        monkeypatch.setattr(signals, "SECOND_SIGTERM_AFTER", -1.0)
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_only_a_later_second_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_on_signals() as request:
        for _ in range(2):  # torchrun repeats what the terminal has sent
            os.kill(os.getpid(), signal.SIGINT)
        assert request
        monkeypatch.setattr(signals, "SECOND_AFTER", -1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
