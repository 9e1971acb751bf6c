from __future__ import annotations

import io
import itertools
import sys
from pathlib import Path

import pytest
from rich.console import Console

from rlawrap.train import train
from rlawrap.train.loop import progress
from rlawrap.train.loop.progress import Clock, open_display
from tests.train.toys import ToyImages, metrics, toy_config, toy_models


def tell(kind: str, *, first: bool = True) -> None:
    with open_display(kind, first=first) as display:
        display.say("resumed")
        display.begin("epoch 2/3", 4, 10)
        display.advance()
        display.show("loss 0.5")
        display.end()


def test_lines_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    tell("auto")  # the captured output is no terminal
    assert capsys.readouterr().out == "resumed\nepoch 2/3  step 5/10  loss 0.5\n"


@pytest.mark.parametrize(("kind", "first"), [("none", True), ("plain", False), ("bar", False)])
def test_nothing_when_not_asked_and_from_other_processes(
    kind: str, first: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(kind, first=first)
    assert capsys.readouterr().out == ""


def test_a_live_bar_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "Console", lambda file: console)
    with open_display("bar", first=True) as display:
        display.say("resumed [from] a file")
        display.begin("epoch 2/3", 4, 10)
        display.advance()
        display.show("loss 0.5")
        assert isinstance(display, progress.Bar)
        display.progress.refresh()
    assert "resumed [from] a file" in screen.getvalue()
    last = [line for line in screen.getvalue().splitlines() if "epoch 2/3" in line][-1]
    assert "5/10" in last and "loss 0.5" in last


def test_a_bar_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "Console", lambda file: console)
    with pytest.raises(KeyboardInterrupt), open_display("bar", first=True) as display:
        display.begin("epoch 2/3", 4, 10)
        display.say("working")
        raise KeyboardInterrupt
    # What was drawn last is erased: nothing of it comes after the last order to clear a line.
    assert "epoch 2/3" in screen.getvalue()
    assert "epoch 2/3" not in screen.getvalue().rpartition("\x1b[2K")[2]


class Gone(io.StringIO):
    """Standard output whose reader is gone, at a terminal or not."""

    terminal = False

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("kind", ["plain", "bar", "auto"])
def test_a_run_goes_on_without_standard_output(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gone, "terminal", kind == "bar")
    monkeypatch.setattr(sys, "stdout", Gone() if kind != "auto" else None)
    with toy_models():
        config = toy_config(tmp_path, epochs=1, ema=0.0, progress=kind)
        result = train(config, data=(ToyImages(20), ToyImages(10)))
    assert result.status == "finished"
    assert [line["kind"] for line in metrics(tmp_path)] == ["train", "train", "eval"]


def test_the_clock_tells_speed_and_the_share_of_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.chain([100.0, 110.0, 112.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    clock = Clock()
    clock.waiting(2.0)
    clock.waiting(0.5)
    assert clock.lap(50) == (10.0, 5.0, 0.25)
    assert clock.lap(50) == (2.0, 25.0, 0.0)
