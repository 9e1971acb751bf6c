"""A run that goes on with other values, when it is asked to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.train import TrainConfig, TrainResult, train
from rlawrap.train.commands.options import config_from_options
from rlawrap.train.loop.run import Run
from rlawrap.train.store import checkpoint
from rlawrap.train.store.run_folder import RunFolder
from tests.train.toys import ToyImages, assert_same_run, metrics, toy_config, toy_models


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    with toy_models():
        yield


def run(folder: Path, **changes: Any) -> TrainResult:
    return train(toy_config(folder, **changes), data=(ToyImages(40), ToyImages(10)))


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_more_epochs_are_as_if_there_had_been_so_many_from_the_start(tmp_path: Path) -> None:
    constant = {"schedule": "constant", "keep": 99}
    run(tmp_path / "whole", epochs=2, **constant)
    run(tmp_path / "run", epochs=1, **constant)
    with pytest.raises(ConfigError, match=r"epochs: 1 there, 2 now\n.*--change epochs="):
        run(tmp_path / "run", epochs=2, resume="auto", **constant)
    again = {"epochs": 2, "resume": "auto", "change": ("epochs",), **constant}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "train_step", interrupt)
        run(tmp_path / "run", **again)
    # Ended before its first step, it is a run of two epochs already, and says so by itself.
    assert run(tmp_path / "run", epochs=2, resume="auto", **constant).epoch == 2
    assert run(tmp_path / "run", **again).status == "finished"
    lines = metrics(tmp_path / "run")
    (told,) = [line for line in lines if line["kind"] == "change"]
    assert told["changes"] == {"epochs": [1, 2]} and told["global_step"] == 5
    recorded = RunFolder(tmp_path / "run").config()
    assert recorded is not None and recorded.epochs == 2
    file = tmp_path / "run" / "metrics.jsonl"
    kept = [line for line in file.read_text().splitlines(True) if '"change"' not in line]
    file.write_text("".join(kept))
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_another_batch_and_decay_hold_from_where_the_run_is(tmp_path: Path) -> None:
    run(tmp_path, keep=99, weight_decay=0.1, decay_filter="weights")
    early = checkpoint.saved(tmp_path / "checkpoints")[-1]
    assert (early.epoch, early.step) == (0, 3)
    change = {"resume": str(early.path), "change": ("batch_size", "weight_decay")}
    same = {"keep": 99, "decay_filter": "weights"}
    run(tmp_path, batch_size=10, weight_decay=0.2, **same, **change)
    trained = [n for n in metrics(tmp_path) if n["kind"] == "train" and n["epoch"] == 0]
    assert [n["images"] for n in trained] == [20, 20]  # the epoch began anew, with batches of 10
    state = checkpoint.read(checkpoint.saved(tmp_path / "checkpoints")[0].path)
    groups = state["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.2, 0.0}
    with pytest.raises(CheckpointError, match="divides the parameters otherwise"):
        run(
            tmp_path, batch_size=10, weight_decay=0.0, **same, resume="auto",
            change=("weight_decay",),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "then", "lacks"),
    [
        ({"optimizer": "adam"}, {"opt_args": {"amsgrad": True}}, "max_exp_avg_sq"),
        ({"optimizer": "rmsprop", "momentum": 0.0}, {"momentum": 0.9}, "momentum_buffer"),
        ({"optimizer": "rmsprop"}, {"opt_args": {"centered": True}}, "grad_avg"),
        ({"momentum": 0.0}, {"momentum": 0.9}, None),
        ({"optimizer": "adam"}, {"opt_args": {"betas": [0.8, 0.99]}}, None),
    ],
)
def test_an_optimiser_that_lacks_state_is_refused_before_anything_is_written(
    tmp_path: Path, first: Any, then: Any, lacks: str | None
) -> None:
    run(tmp_path, epochs=1, lr=0.001, **first)
    before = metrics(tmp_path)
    again = {
        "epochs": 2, "lr": 0.001, **first, **then, "resume": "auto", "change": ("epochs", *then),
    }  # fmt: skip
    if lacks is None:
        assert run(tmp_path, **again).status == "finished"
        return
    told = rf"{lacks}'\)\. Leave out --change {next(iter(then))},"
    with pytest.raises(CheckpointError, match=told):
        run(tmp_path, **again)
    assert metrics(tmp_path) == before
    left_out = {name: getattr(TrainConfig(**first), name) for name in then}
    assert run(tmp_path, **{**again, **left_out, "change": ("epochs",)}).epoch == 2


def test_what_cannot_change_is_told() -> None:
    with pytest.raises(ConfigError, match="optimizer cannot be changed within a run"):
        TrainConfig(resume="auto", change=("optimizer",))
    with pytest.raises(ConfigError, match="Did you mean epochs"):
        TrainConfig(resume="auto", change=("epoch",))
    with pytest.raises(ConfigError, match="nothing to change"):
        TrainConfig(change=("epochs",))


def test_changes_come_by_name_and_value() -> None:
    options = {"change": ["epochs=20", "mixup=0.3"], "epochs": 10, "resume": "auto"}
    config = config_from_options(options, base=json.dumps({"opt_args": {"dampening": 0.1}}))
    assert (config.epochs, config.change) == (20, ("augment", "epochs"))
    assert config.augment is not None and config.augment.mixup == 0.3
    with pytest.raises(ConfigError, match="no field epoch"):
        config_from_options({"change": ["epoch=20"], "resume": "auto"})
