"""Two runs never write to one folder."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlawrap.errors import ConfigError, TrainError
from rlawrap.train import train
from rlawrap.train.process.processes import Processes
from rlawrap.train.store import lock
from rlawrap.train.store.lock import hold_folder
from rlawrap.train.store.run_folder import RunFolder
from tests.train.toys import Group, ToyImages, assert_same_run, toy_config, toy_models, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")

DATA = (ToyImages(), ToyImages(10))


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    monkeypatch.setattr(lock, "PATIENCE_ELSEWHERE", 0.3)
    with toy_models():
        yield


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    images = {"length": 40, "delay": 0.01}
    config = toy_config(tmp_path / "run", epochs=3, resume="auto", allow_changed_data=True)
    group = Group(1, config, images=images)
    try:
        wait_for((tmp_path / "run" / "metrics.jsonl").is_file)
        before = (tmp_path / "run" / "status.json").read_bytes()
        (process,) = group.processes
        with pytest.raises(TrainError, match=rf"process {process.pid} on .*kill -TERM.*--output"):
            train(config, data=DATA)
        assert (tmp_path / "run" / "status.json").read_bytes() == before
    finally:
        group.signal(signal.SIGKILL)
        group.kill()
    train(config, data=DATA)
    assert not (tmp_path / "run" / ".lock").exists()


def test_all_processes_of_a_second_run_end_with_the_message(tmp_path: Path) -> None:
    config = toy_config(tmp_path / "run", timeout=1)  # half of which is waited
    with hold_folder(RunFolder(tmp_path / "run"), Processes(), print, 1):
        group = Group(2, config)
        assert group.wait() == [2, 2]
    assert f"another run is writing to it, process {os.getpid()}" in group.errors()


def test_a_run_waits_for_one_that_is_about_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 30)
    told: list[str] = []
    folder = RunFolder(tmp_path / "run")
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with hold_folder(folder, Processes(), print, 60):
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(30)

    def hear(text: str) -> None:
        told.append(text)
        leave.set()

    with hold_folder(folder, Processes(), hear, 60):
        assert told == [
            f"{folder.path}: in use by process {os.getpid()} on {socket.gethostname()}; "
            "waiting 30 s"
        ]
    thread.join()
    assert not (folder.path / ".lock").exists()


def test_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with hold_folder(folder, Processes(), print, 60):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with hold_folder(folder, Processes(), print, 60):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(handle: int, *, shared: bool = False) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    train(toy_config(tmp_path / "whole"), data=DATA)
    monkeypatch.setattr(lock, "_lock", refuse)
    train(toy_config(tmp_path / "run", progress="plain"), data=DATA)
    assert "has no locks (No locks available)" in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_refused_run_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CUDA"):
        train(toy_config(tmp_path / "a" / "b", sync_bn=True), data=DATA)
    assert list(tmp_path.iterdir()) == []
