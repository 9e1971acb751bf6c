"""Every option that touches the numbers: a run stopped within an epoch goes on bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlawrap.train import train
from rlawrap.train.store import checkpoint
from tests.train.toys import ToyImages, differences, metrics, toy_config, toy_models


@pytest.mark.parametrize(
    "changes",
    [
        {
            "optimizer": "adamw",
            "opt_args": {"amsgrad": True, "betas": [0.8, 0.9]},
            "drop_last": True,
            "repeats": 3,
            "augment": {"mixup": 0.2, "trivialaugment": True},
        },
        {"optimizer": "lamb", "weight_decay": 0.02, "ema_every": 2, "accumulate": 2},
    ],
    ids=["adamw", "lamb"],
)
def test_resumed_within_an_epoch_is_bit_equal(tmp_path: Path, changes: dict[str, Any]) -> None:
    with toy_models():
        check_resume(tmp_path, **changes)


def test_checkpointed_blocks_and_layer_decay_are_bit_equal(tmp_path: Path) -> None:
    arguments = {"k": 2, "num_classes": 4}
    options = {"arch": "rla_cifar_resnet20", "model_kwargs": arguments, "epochs": 1}
    check_resume(tmp_path, **options, grad_checkpointing=True, layer_decay=0.9, optimizer="adam")


def check_resume(tmp_path: Path, **changes: Any) -> None:
    """A whole run, and one that goes on from its first checkpoint, within the first epoch."""
    data = (ToyImages(40), ToyImages(10))
    train(toy_config(tmp_path / "whole", keep=99, **changes), data=data)
    early = checkpoint.saved(tmp_path / "whole" / "checkpoints")[-1]
    assert (early.epoch, early.step) == (0, 3)
    again = toy_config(tmp_path / "again", resume=str(early.path), keep=99, **changes)
    train(again, data=data)
    late = [checkpoint.saved(tmp_path / run / "checkpoints")[0] for run in ("whole", "again")]
    assert (late[0].epoch, late[0].step) == (late[1].epoch, late[1].step) == (again.epochs, 0)
    whole, other = (checkpoint.read(saved.path) for saved in late)
    for state in (whole, other):
        del state["config"], state["metrics_size"]
    assert differences(whole, other) == []
    lines = metrics(tmp_path / "whole")
    assert metrics(tmp_path / "again") == [n for n in lines if n["global_step"] > 3]
