"""Loader processes that are killed or lack what they need: one message, and nothing is lost."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import Tensor

from rlawrap.errors import LoaderError, TrainError
from rlawrap.train import train
from rlawrap.train.data import loader
from rlawrap.train.store.run_folder import RunFolder
from tests.train.toys import ToyImages, assert_same_run, toy_config, toy_models


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leaves() -> None:
    os._exit(3)


def lacks_open_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def fails_in_a_read() -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Deadly(ToyImages):
    """Something happens to what loads image 7: in epoch 1, or of the test images."""

    event: Callable[[], None]

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
        if index == 7 and (epoch == 1 or self.name == "test"):
            self.event()
        return super().load(index, seed=seed, epoch=epoch)


def deadly(event: Callable[[], None], length: int = 40, name: str = "toy") -> Deadly:
    images = Deadly(length, name=name)
    images.event = event
    return images


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loader, "POLL_SECONDS", 0.05)
    with toy_models():
        yield


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (is_killed, r"process \d+ was killed by SIGKILL, perhaps for want of memory"),
        (leaves, r"process \d+ ended with exit code 3"),
        (lacks_open_files, r"could not hand a batch over, for want of open files"),
    ],
)
def test_what_was_done_is_saved_and_the_run_goes_on_as_if_none_had_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], event: Callable[[], None], why: str
) -> None:
    train(toy_config(tmp_path / "whole"), data=(ToyImages(), ToyImages(10, name="test")))
    config = toy_config(tmp_path / "run", workers=1, save_every=None, resume="auto")
    with pytest.raises(LoaderError, match=rf"{why}.*--workers.*is saved in .*epoch0001") as caught:
        train(config, data=(deadly(event), ToyImages(10, name="test")))
    assert RunFolder(tmp_path / "run").status()["message"] == str(caught.value)
    with pytest.raises(LoaderError, match=rf"{why}.*is saved in .*epoch0001-step000005"):
        train(config, data=(ToyImages(), deadly(event, 10, "test")))
    assert train(config.replace(workers=0), data=(ToyImages(), ToyImages(10, name="test")))
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert capfd.readouterr().err == ""


def test_processes_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", fails_in_a_read)
    with pytest.raises(LoaderError, match=r"2 loader processes could not be started: .*Too many"):
        train(toy_config(tmp_path, workers=2), data=(ToyImages(), ToyImages(10)))


def test_an_error_of_the_system_in_the_run_itself_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"cannot go on: .*Too many open files.*--resume auto"):
        train(toy_config(tmp_path), data=(deadly(fails_in_a_read), ToyImages(10)))
    assert RunFolder(tmp_path).status()["state"] == "failed"
