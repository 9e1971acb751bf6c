from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlawrap.errors import TrainError
from rlawrap.train import TrainConfig
from rlawrap.train.records.runs import read_run
from rlawrap.train.store import checkpoint
from rlawrap.train.store.run_folder import RunFolder


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
    text = (tmp_path / "confusion" / "epoch0013.csv").read_text().splitlines()
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
