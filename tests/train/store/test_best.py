"""best.pt is the checkpoint of the best epoch, wherever a run was killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlawrap.train import TrainConfig, train
from rlawrap.train.loop import judging
from rlawrap.train.loop.run import Run
from rlawrap.train.records.runs import read_run
from rlawrap.train.store import checkpoint
from rlawrap.train.store.best import is_best
from tests.train.toys import ToyImages, assert_same_run, final_state, toy_config, toy_models

DATA = (ToyImages(), ToyImages(10))
FIGURES = {"epoch": 1, "top1": 60.0}


class Killed(BaseException):
    """Ends a run as SIGKILL would: nothing is tidied up."""


def killed(*arguments: object) -> None:
    raise Killed


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    with toy_models():
        yield


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Give the epochs these accuracies."""
    judge = judging.judge_model

    def script(values: list[float]) -> None:
        import dataclasses

        rest = iter(values)
        monkeypatch.setattr(
            judging,
            "judge_model",
            lambda *a, **options: dataclasses.replace(judge(*a, **options), top1=next(rest)),
        )

    return script


def killed_before_the_link(config: TrainConfig, epoch: int) -> None:
    """Run until the checkpoint of an epoch is there, but best.pt is not yet."""
    link = checkpoint.link_best

    def link_or_die(saved: checkpoint.Saved, run: Path) -> Path:
        if saved.epoch == epoch:
            raise Killed
        return link(saved, run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "link_best", link_or_die)
        with pytest.raises(Killed):
            train(config, data=DATA)


def position_of_best(run: Path) -> dict[str, int]:
    position = checkpoint.read(run / "best.pt")["position"]
    assert json.loads((run / "best.json").read_text())["epoch"] == position["epoch"] - 1
    return dict(position)


@pytest.mark.parametrize("keep", [1, 3])
def test_killed_between_the_checkpoint_and_the_link(
    tmp_path: Path, scores: Callable[[list[float]], None], keep: int
) -> None:
    figures = [30.0, 40.0, 35.0, 20.0, 10.0]
    scores(figures)
    train(toy_config(tmp_path / "whole", epochs=5, keep=keep, ema=0.0), data=DATA)
    config = toy_config(tmp_path / "run", epochs=5, keep=keep, ema=0.0, resume="auto")
    scores(figures)
    killed_before_the_link(config, epoch=2)
    assert position_of_best(tmp_path / "run") == {"epoch": 1, "step": 0}
    scores(figures[2:])
    result = train(config, data=DATA)
    assert result.best is not None and result.best["epoch"] == 1
    assert position_of_best(tmp_path / "run") == {"epoch": 2, "step": 0}
    assert list((tmp_path / "run").glob(".best-*")) == []
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_killed_before_the_first_link_and_stopped_twice(
    tmp_path: Path, scores: Callable[[list[float]], None]
) -> None:
    """The checkpoint resumed need not be the best one."""
    config = toy_config(tmp_path, ema=0.0, resume="auto", save_every=1, keep=9)
    scores([50.0, 40.0])
    killed_before_the_link(config, epoch=1)
    assert not (tmp_path / "best.pt").exists()
    first = checkpoint.saved(tmp_path / "checkpoints")[0]
    newer = {**checkpoint.read(first.path), "best": False, "position": {"epoch": 1, "step": 1}}
    checkpoint.write(tmp_path / "checkpoints", newer, epoch=1, step=1)
    train(config, data=DATA)
    assert position_of_best(tmp_path) == {"epoch": 1, "step": 0}
    assert (tmp_path / "best.pt").samefile(first.path)


def test_a_run_from_another_runs_checkpoint_gets_its_best_one(tmp_path: Path) -> None:
    result = train(toy_config(tmp_path / "a", keep=1), data=DATA)
    assert result.best is not None
    (newest,) = checkpoint.saved(tmp_path / "a" / "checkpoints")
    train(toy_config(tmp_path / "b", resume=str(newest.path)), data=DATA)
    assert position_of_best(tmp_path / "b")["epoch"] == result.best["epoch"] + 1


def test_best_weights_that_are_gone_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: Callable[[list[float]], None]
) -> None:
    scores([50.0, 40.0, 30.0])
    train(toy_config(tmp_path, ema=0.0, keep=1), data=DATA)
    (tmp_path / "best.pt").unlink()
    train(toy_config(tmp_path, ema=0.0, resume="auto", progress="plain"), data=DATA)
    assert "the best epoch so far, epoch 1, are in none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"best": True}, True),
        ({"best": False, "position": {"epoch": 2, "step": 0}}, False),
        ({"position": {"epoch": 2, "step": 0}, "standing": {"best": FIGURES}}, True),
        ({"position": {"epoch": 2, "step": 4}, "standing": {"best": FIGURES}}, False),
        ({"position": {"epoch": 3, "step": 0}, "standing": {"best": FIGURES}}, False),
        ({"position": {"epoch": 0, "step": 4}, "standing": {"best": None}}, False),
    ],
)
def test_checkpoints_without_the_field_tell_too(state: dict[str, Any], expected: bool) -> None:
    assert is_best(state) is expected


def test_another_monitor_chooses_the_best_epoch_anew(
    tmp_path: Path, scores: Callable[[list[float]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {"ema": 0.0, "lr": 1e-6, "schedule": "constant"}
    scores([90.0, 20.0])
    train(toy_config(tmp_path, epochs=2, **plain), data=DATA)
    assert position_of_best(tmp_path)["epoch"] == 1
    before = (tmp_path / "best.pt").read_bytes()
    asked = {"resume": "auto", "change": ("epochs", "monitor"), "progress": "plain"}
    config = toy_config(tmp_path, epochs=3, monitor="top5", **asked, **plain)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "train_step", killed)
        train(config, data=DATA)
    told = capsys.readouterr().out
    assert "chosen anew, by top5: best.pt is replaced after the next epoch" in told
    assert (tmp_path / "best.pt").read_bytes() == before
    scores([10.0])
    train(config.replace(change=()), data=DATA)
    assert position_of_best(tmp_path)["epoch"] == 3
    assert final_state(tmp_path)["standing"]["anew"] is False
    record = read_run(tmp_path)
    assert record.best is not None and (record.best["epoch"], record.best["top1"]) == (2, 10.0)


def test_a_run_from_another_s_checkpoint_tells_the_best_epoch_that_it_has(
    tmp_path: Path, scores: Callable[[list[float]], None]
) -> None:
    scores([90.0, 20.0])
    train(toy_config(tmp_path / "old", epochs=2, keep=9, ema=0.0, schedule="constant"), data=DATA)
    newest = str(checkpoint.saved(tmp_path / "old" / "checkpoints")[0].path)
    asked = {"resume": newest, "change": ("epochs",), "schedule": "constant"}
    scores([30.0])
    train(toy_config(tmp_path / "new", epochs=3, ema=0.0, **asked), data=DATA)
    assert position_of_best(tmp_path / "new")["epoch"] == 1
    record = read_run(tmp_path / "new")
    assert record.best is not None and (record.best["epoch"], record.best["top1"]) == (0, 90.0)
    assert [line["top1"] for line in record.evaluations] == [30.0] and record.epochs_done == 3
