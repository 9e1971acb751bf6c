from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rlawrap.errors import TrainError
from rlawrap.train.runlog import MetricsLog, RunFolder


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
    with pytest.raises(TrainError, match=r"config\.json"):
        folder.config()


def test_the_confusion_matrix_names_its_classes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_confusion(12, torch.tensor([[1, 2], [3, 4]]), ("cat, small", "dog"))
    text = (tmp_path / "confusion" / "epoch0012.csv").read_text().splitlines()
    assert text == ['true \\ predicted,"cat, small",dog', '"cat, small",1,2', "dog,3,4"]
