"""Writing that fails: the run ends with a message in all processes, and status.json tells it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlawrap.errors import TrainError
from rlawrap.train import train
from rlawrap.train.store import run_folder
from rlawrap.train.store.metrics import MetricsLog
from rlawrap.train.store.run_folder import RunFolder
from tests.train.toys import Group, ToyImages, toy_config, toy_models


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    with toy_models():
        yield


def metrics_are_a_folder(run: Path) -> str:
    (run / "metrics.jsonl").mkdir()
    return r"metrics\.jsonl: cannot be written \(Is a directory"


def confusion_is_a_file(run: Path) -> str:
    (run / "confusion").touch()
    return r"epoch0001\.csv: cannot be written \(File exists"


def config_cannot_be_written(run: Path) -> str:
    (run / "config.json.new").mkdir()
    (run / "status.json").write_text('{"state": "running"}')
    return r"config\.json: cannot be written \(Is a directory"


@pytest.mark.parametrize(
    "spoil", [metrics_are_a_folder, confusion_is_a_file, config_cannot_be_written]
)
def test_what_cannot_be_written_ends_the_run(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    message = spoil(tmp_path)
    with pytest.raises(TrainError, match=message):
        train(toy_config(tmp_path, epochs=1), data=(ToyImages(40), ToyImages(10)))
    assert RunFolder(tmp_path).status()["state"] == "failed"


@pytest.mark.parametrize("spoil", [metrics_are_a_folder, confusion_is_a_file])
def test_all_processes_end_with_the_message(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    spoil(run)
    group = Group(2, toy_config(run, epochs=1))
    assert group.wait() == [2, 2]
    assert group.errors().count("cannot be written") == 2
    assert RunFolder(run).status()["state"] == "failed"


def test_a_line_that_finds_no_room_is_an_error_once(tmp_path: Path) -> None:
    log = MetricsLog(RunFolder(tmp_path))
    log.close()
    log._file = Path("/dev/full").open("wb")  # noqa: SIM115 (the log closes it)
    with pytest.raises(TrainError, match=r"metrics\.jsonl: cannot be written \(No space"):
        log.write("train", {"global_step": 1})
    log.close()


def test_the_status_is_written_over_the_old_one_when_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("running", message="so far it goes well")

    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_json", full)
    folder.write_status("failed", epoch=1)
    assert json.loads(folder.status_file.read_text()) == {"state": "failed", "epoch": 1}
