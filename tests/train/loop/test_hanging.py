"""A read that hangs (a network disk that is gone) does not keep a run from signals."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from rlawrap.train import train
from rlawrap.train.process import signals
from rlawrap.train.store.run_folder import RunFolder
from tests.train.toys import ToyImages, assert_same_run, toy_config, toy_models, wait_for


class Hanging(ToyImages):
    """Image 7 does not come in epoch 1; `hangs` is made when it is asked for."""

    hangs: Path

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
        if index == 7 and (epoch == 1 or self.name == "test"):
            self.hangs.touch()
            time.sleep(300)
        return super().load(index, seed=seed, epoch=epoch)


def hanging(folder: Path, length: int, name: str) -> Hanging:
    images = Hanging(length, name=name)
    images.hangs = folder / "hangs"
    return images


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    with toy_models():
        yield


def signals_once_it_hangs(folder: Path, *numbers: signal.Signals) -> None:
    def send() -> None:
        wait_for((folder / "hangs").exists)
        for number in numbers:
            time.sleep(0.3)
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize("where", ["train", "test"])
def test_a_run_stops_while_it_waits_and_goes_on_as_if_it_had_not(
    tmp_path: Path, where: str
) -> None:
    whole = toy_config(tmp_path / "whole")
    train(whole, data=(ToyImages(40), ToyImages(10, name="test")))
    config = toy_config(tmp_path / "run", workers=1, resume="auto")
    images = ToyImages(40), ToyImages(10, name="test")
    if where == "train":
        spoilt = hanging(tmp_path, 40, "toy"), images[1]
    else:
        spoilt = images[0], hanging(tmp_path, 10, "test")
    signals_once_it_hangs(tmp_path, signal.SIGTERM)
    result = train(config, data=spoilt)
    assert result.status == "stopped"
    assert (result.epoch, result.step < 5) == ((1, True) if where == "train" else (0, False))
    assert multiprocessing.active_children() == []
    assert train(config, data=images).status == "finished"
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_second_signal_ends_a_read_without_loader_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "SECOND_AFTER", 0.1)
    signals_once_it_hangs(tmp_path, signal.SIGTERM, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(toy_config(tmp_path), data=(hanging(tmp_path, 40, "toy"), ToyImages(10)))
    status = RunFolder(tmp_path).status()
    assert status["state"] == "failed" and "second signal" in status["message"]
