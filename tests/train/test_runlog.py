from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from rlawrap.errors import TrainError
from rlawrap.train import TrainConfig, checkpoint
from rlawrap.train.runlog import MetricsLog, RunFolder, write_json
from rlawrap.train.runs import read_run


def test_lines_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with MetricsLog(folder) as log:
        log.write("train", {"global_step": 1, "loss": 0.1})
        size = log.sync()
        log.write("train", {"global_step": 2, "loss": 0.2})
    with folder.metrics_file.open("a") as file:
        file.write('{"torn')
    with MetricsLog(folder, size=size) as log:
        log.write("train", {"global_step": 2, "loss": 0.3})
    lines = [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]
    assert [line["loss"] for line in lines] == [0.1, 0.3]
    with MetricsLog(folder):
        pass
    assert folder.metrics_file.read_bytes() == b""


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    with MetricsLog(None) as log:
        log.write("train", {"global_step": 1})
        assert log.sync() == 0


def test_status_and_config_that_are_none_or_damaged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.status() == {} and folder.config() is None
    folder.write_status("running", epoch=1)
    assert folder.status() == {"state": "running", "epoch": 1}
    folder.status_file.write_text("{")
    assert folder.status() == {}
    folder.config_file.write_text("{")
    assert folder.config() is None  # of a run that has not begun
    folder.metrics_file.write_text("{}\n")
    with pytest.raises(TrainError, match=r"config\.json"):
        folder.config()


def test_the_confusion_matrix_names_its_classes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_confusion(12, torch.tensor([[1, 2], [3, 4]]), ("cat, small", "dog"))
    text = (tmp_path / "confusion" / "epoch0012.csv").read_text().splitlines()
    assert text == ['true \\ predicted,"cat, small",dog', '"cat, small",1,2', "dog,3,4"]


@pytest.mark.parametrize("text", ["", "{", "[]", "\0\0\0"])
def test_the_config_is_taken_from_a_checkpoint_when_its_file_is_damaged(
    tmp_path: Path, text: str
) -> None:
    folder, config = RunFolder(tmp_path), TrainConfig(lr=0.3)
    state = {"position": {"epoch": 1, "step": 0}, "config": config.to_dict()}
    older = checkpoint.write(folder.checkpoints, state, epoch=1, step=0)
    checkpoint.write(folder.checkpoints, state, epoch=2, step=0).path.write_bytes(b"damaged")
    folder.metrics_file.write_text("{}\n")
    folder.config_file.write_text(text)
    assert folder.config() == config
    assert read_run(tmp_path).config["lr"] == 0.3
    checkpoint.link_best(older, tmp_path)
    older.path.unlink()
    assert folder.config() == config


def test_small_files_are_on_the_disk_before_they_replace_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        done.append("sync")
        sync(handle)

    def replaced(old: Path, new: Path) -> None:
        done.append(f"replace {new.name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_json(tmp_path / "a.json", {"a": 1})
    assert done[:2] == ["sync", "replace a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
