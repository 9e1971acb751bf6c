"""Standard output that closes, is full or lacks letters ends nothing."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import pytest

from rlawrap.errors import RLAError
from rlawrap.streams import complain, results_on_screen, steady, steady_output

full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, number: int = errno.EPIPE) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EAGAIN])
def test_what_cannot_be_written_is_dropped(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Broken(number)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", broken)
        patch.setattr(sys, "stderr", broken)
        with steady_output():
            print("said", flush=True)
            print("said", file=sys.stderr, flush=True)
        assert sys.stdout is broken
        complain("a message")
    closed = io.StringIO()
    closed.close()
    print("said", file=steady(closed), flush=True)
    print("said", file=steady(None), flush=True)
    assert not steady(None).isatty() and not steady(closed).isatty()
    assert capsys.readouterr() == ("", "")


def test_what_the_encoding_lacks_is_escaped() -> None:
    target = io.BytesIO()
    text = io.TextIOWrapper(target, encoding="ascii")
    print("a 猫 \udcff", file=steady(text), flush=True)
    assert target.getvalue() == b"a \\u732b \\udcff\n"


@full
def test_nothing_is_left_for_python_to_fail_at_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as stream:  # which is flushed as it is closed
        monkeypatch.setattr(sys, "stdout", stream)
        with steady_output():
            print("said")


def test_a_closed_descriptor_gets_no_file_of_the_run(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    child = os.fork()
    if child == 0:
        os.close(1)
        with steady_output(), (tmp_path / "file").open("wb") as file:
            os._exit(file.fileno() < 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@full
def test_results_that_a_full_disk_does_not_take_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Path("/dev/full").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(RLAError, match=r"output: .*No space left"), results_on_screen():
            print("a result")
    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(BrokenPipeError), results_on_screen():
        print("a result")
