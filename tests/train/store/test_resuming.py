"""What a run goes on from when files of its folder are damaged, gone or older than others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.train import train
from rlawrap.train.loop.run import Run
from rlawrap.train.store import checkpoint
from tests.train.toys import (
    ToyImages,
    assert_same_run,
    differences,
    final_state,
    metrics,
    toy_config,
    toy_models,
    toy_net,
)

DATA = (ToyImages(), ToyImages(10))


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    with toy_models():
        yield


def damage(path: Path) -> None:
    """Replace a file by a cut one; what is linked to it stays."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:1000])


def contents(run: Path) -> dict[str, bytes]:
    """The files of a run, but not the names that damaged ones got."""
    files = [path for path in run.rglob("*") if path.is_file()]
    return {p.name.removesuffix(".damaged"): p.read_bytes() for p in files}


def test_best_is_gone_on_from_when_no_checkpoint_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(toy_config(tmp_path / "whole"), data=DATA)
    train(toy_config(tmp_path / "run"), data=DATA)
    for saved in checkpoint.saved(tmp_path / "run" / "checkpoints"):
        damage(saved.path)
    train(toy_config(tmp_path / "run", resume="auto", progress="plain"), data=DATA)
    told = capsys.readouterr().out
    assert f"resumed from {tmp_path / 'run' / 'best.pt'}" in told
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_without_any_whole_checkpoint_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    train(toy_config(tmp_path), data=DATA)
    for path in [
        tmp_path / "best.pt",
        *(s.path for s in checkpoint.saved(tmp_path / "checkpoints")),
    ]:
        damage(path)
    before = contents(tmp_path)
    for _ in range(2):  # the second time they are set aside already
        with pytest.raises(CheckpointError, match=r"none of its checkpoints is whole.*--output"):
            train(toy_config(tmp_path, resume="auto"), data=DATA)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(toy_config(tmp_path), data=DATA)
    (tmp_path / "best.pt").unlink()
    del before["best.pt"]
    with pytest.raises(CheckpointError, match=r"there is no best\.pt"):
        train(toy_config(tmp_path, resume="auto"), data=DATA)
    assert contents(tmp_path) == before


def test_a_run_whose_checkpoints_were_deleted_is_refused(tmp_path: Path) -> None:
    train(toy_config(tmp_path, save_every=None), data=DATA)
    for path in tmp_path.rglob("*.pt"):
        path.unlink()
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="holds a run"):
        train(toy_config(tmp_path, resume="auto"), data=DATA)
    assert contents(tmp_path) == before


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    train(toy_config(tmp_path / "whole"), data=DATA)
    train(toy_config(tmp_path / "run", epochs=1, save_every=None), data=DATA)
    for path in (tmp_path / "run").rglob("*.pt"):
        path.unlink()
    (tmp_path / "run" / "config.json").unlink()
    train(toy_config(tmp_path / "run", resume="auto"), data=DATA)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


class Stopped(BaseException):
    """Ends a run as SIGKILL would."""


@pytest.mark.parametrize("copied", [False, True])
def test_newer_checkpoints_are_set_aside_when_an_older_one_is_resumed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    copied: bool,
) -> None:
    train(toy_config(tmp_path / "whole", epochs=4, keep=99), data=DATA)
    config = toy_config(tmp_path / "run", epochs=4, keep=99, progress="plain")
    train(config, data=DATA)
    files = [s.path for s in checkpoint.saved(tmp_path / "run" / "checkpoints")]
    before = {path.name: path.read_bytes() for path in files}
    old = next(path for path in files if path.name.startswith("epoch0001-step000004"))
    given = old
    if copied:  # a copy under a name of its own
        given = tmp_path / "run" / "good.pt"
        os.replace(old, given)

    def stop(self: Run, *args: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_step", stop)
        with pytest.raises(Stopped):
            train(config.replace(resume=str(given)), data=DATA)
    assert f"{files[0].name}.superseded: newer than {old.name}" in capsys.readouterr().out
    train(config.replace(resume="auto"), data=DATA)
    assert f"resumed from {old}" in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    after = {path.name.removesuffix(".superseded") for path in old.parent.iterdir()}
    assert set(before) <= after
    evaluations = [line["epoch"] for line in metrics(tmp_path / "run") if line["kind"] == "eval"]
    assert evaluations == [0, 1, 2, 3]


def test_best_of_an_epoch_that_is_still_to_come_is_set_aside(tmp_path: Path) -> None:
    config = toy_config(tmp_path, keep=99, save_every=1)
    train(config, data=DATA)
    best = (tmp_path / "best.pt").read_bytes()
    first = checkpoint.saved(tmp_path / "checkpoints")[-1]
    assert (first.epoch, first.step) == (0, 1)

    train(config.replace(resume=str(first.path)), data=DATA)
    assert (tmp_path / "best.pt.superseded").read_bytes() == best
    assert (tmp_path / "best.json.superseded").is_file()
    assert checkpoint.read(tmp_path / "best.pt")["best"]


def test_a_run_from_another_runs_checkpoint_can_be_killed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(toy_config(tmp_path / "a", keep=9), data=DATA)
    early = checkpoint.saved(tmp_path / "a" / "checkpoints")[-1]
    config = toy_config(tmp_path / "b", resume=str(early.path))

    def stop(self: Run, *args: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_step", stop)
        with pytest.raises(Stopped):
            train(config, data=DATA)
    (saved,) = checkpoint.saved(tmp_path / "b" / "checkpoints")
    assert (saved.epoch, saved.step) == (early.epoch, early.step)
    train(config.replace(resume="auto"), data=DATA)
    whole, again = final_state(tmp_path / "a"), final_state(tmp_path / "b")
    assert differences(whole["model"], again["model"]) == []


@pytest.mark.parametrize("option", ["finetune", "pretrained_conv1"])
def test_the_weights_that_a_run_started_from_are_not_needed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    base = tmp_path / "base.pt"
    torch.save(toy_net().state_dict(), base)
    train(toy_config(tmp_path / "whole", **{option: str(base)}), data=DATA)
    config = toy_config(tmp_path / "run", **{option: str(base)}, resume="auto")
    step = Run.train_step

    def stop(self: Run, *args: Any) -> None:
        if self.position.epoch == 1:
            raise Stopped
        step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_step", stop)
        with pytest.raises(Stopped):
            train(config, data=DATA)
    base.unlink()
    train(config, data=DATA)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"base\.pt"):
        train(config.replace(output=str(tmp_path / "new")), data=DATA)


@pytest.mark.parametrize("text", ["", '{"arch": "t'])
def test_a_damaged_config_does_not_stand_in_the_way(tmp_path: Path, text: str) -> None:
    config = toy_config(tmp_path / "run", resume="auto")
    train(toy_config(tmp_path / "whole"), data=DATA)
    train(config, data=DATA)
    file = tmp_path / "run" / "config.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"lr: 0\.05 there, 0\.5 now"):
        train(config.replace(lr=0.5), data=DATA)
    train(config, data=DATA)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert json.loads(file.read_text()) == config.replace(monitor="top1").to_dict()
