"""A run that is stopped in any way and started again ends as if it had not been."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from torch import Tensor

from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.train import train
from rlawrap.train.loop.run import Run
from rlawrap.train.store import checkpoint
from tests.train.toys import (
    Group,
    ToyImages,
    assert_same_run,
    differences,
    kill_and_resume,
    metrics,
    run_group,
    toy_config,
    toy_models,
    wait_for,
)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_killed_and_resumed_is_bit_equal(tmp_path: Path, world: int) -> None:
    hits = kill_and_resume(tmp_path, world, seed=world)
    assert hits == 1


@pytest.mark.parametrize("world", [3, 4])
def test_resumed_at_a_known_step_is_bit_equal(tmp_path: Path, world: int) -> None:
    """Three processes and more are where DistributedDataParallel's regrouping shows."""
    images = {"length": 40}
    run_group(world, toy_config(tmp_path / "whole", keep=99), images=images)
    early = checkpoint.saved(tmp_path / "whole" / "checkpoints")[-1]
    assert (early.epoch, early.step) == (0, 3)
    config = toy_config(tmp_path / "again", resume=str(early.path), keep=99)
    run_group(world, config, images=images)
    late = [checkpoint.saved(tmp_path / run / "checkpoints")[0] for run in ("whole", "again")]
    assert (late[0].epoch, late[0].step) == (late[1].epoch, late[1].step) == (2, 0)
    whole, again = (checkpoint.read(saved.path) for saved in late)
    for state in (whole, again):
        del state["config"], state["metrics_size"]
    assert differences(whole, again) == []


def test_with_loader_processes_and_without_is_bit_equal(tmp_path: Path) -> None:
    with toy_models():
        for workers in (0, 2):
            train(
                toy_config(tmp_path / str(workers), workers=workers, epochs=1),
                data=(ToyImages(), ToyImages(10)),
            )
    assert_same_run(tmp_path / "0", tmp_path / "2")


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2)])
def test_with_another_number_of_processes_every_image_is_seen_once(
    tmp_path: Path, before: int, after: int
) -> None:
    log = tmp_path / "seen"
    config = toy_config(tmp_path / "run", save_every=1, epochs=2)
    images = {"length": 40, "log": log, "delay": 0.005}
    group = Group(before, config, images=images)
    wait_for(lambda: len(checkpoint.saved(tmp_path / "run" / "checkpoints")) > 1)
    group.signal(signal.SIGTERM)
    assert group.wait() == [0] * before
    stopped = checkpoint.saved(tmp_path / "run" / "checkpoints")[0]
    assert 0 < stopped.epoch * 5 + stopped.step < 10
    run_group(after, config.replace(resume="auto"), images=images)
    seen = Counter(tuple(map(int, line.split())) for line in log.read_text().splitlines())
    # Warm-up and padding load images 0 and the first of a batch again; nothing is ever left out.
    assert set(seen) == {(epoch, index) for epoch in (0, 1) for index in range(40)} | {(0, 0)}
    lines = [line for line in metrics(tmp_path / "run") if line["kind"] == "train"]
    for epoch in (0, 1):
        assert sum(line["images"] for line in lines if line["epoch"] == epoch) == 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_process_saves_in_all_and_exits_with_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    images = {"length": 60, "delay": 0.005}
    run_group(2, toy_config(tmp_path / "whole", epochs=2, save_every=None), images=images)
    config = toy_config(tmp_path / "stopped", epochs=2, save_every=None, resume="auto")
    group = Group(2, config, images=images)
    wait_for(lambda: (tmp_path / "stopped" / "metrics.jsonl").is_file())
    time.sleep(0.2)
    group.signal(number, slice(1, 2))
    assert group.wait() == [0, 0]
    assert '"stopped"' in (tmp_path / "stopped" / "status.json").read_text()
    assert len(checkpoint.saved(tmp_path / "stopped" / "checkpoints")) >= 1
    run_group(2, config, images=images)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


class StopsWhileJudged(ToyImages):
    """Test images the fourth of which sends SIGTERM, once."""

    sent = False

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
        if index == 3 and not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)
        return super().load(index, seed=seed, epoch=epoch)


def test_stopped_while_judging_and_resumed_is_bit_equal(tmp_path: Path) -> None:
    with toy_models():
        train(toy_config(tmp_path / "whole", batch_size=6), data=(ToyImages(), ToyImages(20)))
        data = (ToyImages(), StopsWhileJudged(20))
        config = toy_config(tmp_path / "run", batch_size=6, resume="auto")
        stopped = train(config, data=data)
        assert (stopped.status, stopped.epoch, stopped.step) == ("stopped", 0, 7)
        assert train(config, data=data).status == "finished"
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (ToyImages(), ToyImages(10))
    with toy_models():
        train(toy_config(tmp_path / "whole"), data=data)
        train(toy_config(tmp_path / "run", progress="plain"), data=data)
        newest, second, third = checkpoint.saved(tmp_path / "run" / "checkpoints")
        content = bytearray(newest.path.read_bytes())
        content[len(content) // 2] ^= 1
        newest.path.write_bytes(content)
        second.path.write_bytes(second.path.read_bytes()[:-100])
        capsys.readouterr()
        train(toy_config(tmp_path / "run", progress="plain", resume="auto"), data=data)
    told = capsys.readouterr().out
    assert f"{newest.path}: damaged" in told
    assert f"{second.path}: damaged" in told
    assert f"resumed from {third.path}" in told
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    data = (ToyImages(), ToyImages(10))
    with toy_models():
        first = train(toy_config(tmp_path), data=data)
        before = {p: p.read_bytes() for p in tmp_path.rglob("*.pt")}
        again = train(toy_config(tmp_path, resume="auto"), data=data)
    assert again.best == first.best and again.status == "finished"
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.pt")} == before


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    data = (ToyImages(), ToyImages(10))
    with toy_models():
        train(toy_config(tmp_path), data=data)
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        with pytest.raises(ConfigError, match="--resume auto"):
            train(toy_config(tmp_path), data=data)
        with pytest.raises(ConfigError, match=r"lr: 0.05 there, 0.06 now"):
            train(toy_config(tmp_path, lr=0.06, resume="auto"), data=data)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path) -> None:
    data = (ToyImages(), ToyImages(10))
    with toy_models():
        train(toy_config(tmp_path / "a"), data=data)
        best = str(tmp_path / "a" / "best.pt")
        with pytest.raises(CheckpointError, match=r"batch_size: 9 there, 8 now"):
            train(toy_config(tmp_path / "b", batch_size=8, resume=best), data=data)
    assert not (tmp_path / "b").exists()


def test_changed_data_is_refused_with_counts_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with toy_models():
        train(toy_config(tmp_path), data=(ToyImages(40), ToyImages(10)))
        config = toy_config(tmp_path, resume="auto", progress="plain")
        with pytest.raises(CheckpointError, match="40 training images then, 41 now"):
            train(config, data=(ToyImages(41), ToyImages(10)))
        train(config.replace(allow_changed_data=True), data=(ToyImages(41), ToyImages(10)))
    assert "warning" in capsys.readouterr().out


def test_changed_test_images_are_refused_with_counts_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with toy_models():
        train(toy_config(tmp_path), data=(ToyImages(40), ToyImages(10)))
        config = toy_config(tmp_path, resume="auto", progress="plain")
        with pytest.raises(CheckpointError, match="pt: 10 test images then, 3 now"):
            train(config, data=(ToyImages(40), ToyImages(3)))
        train(config.replace(allow_changed_data=True), data=(ToyImages(40), ToyImages(3)))
        assert "10 test images then, 3 now" in capsys.readouterr().out
        newest = checkpoint.saved(tmp_path / "checkpoints")[0]
        state = checkpoint.read(newest.path)
        del state["data"]["test_images"], state["data"]["test_fingerprint"]
        newest.path.unlink()
        checkpoint.write(tmp_path / "checkpoints", state, **state["position"])
        train(config, data=(ToyImages(40), ToyImages(3)))  # of an earlier version


class OtherClasses(ToyImages):
    """The same images with a class less."""

    def __init__(self, length: int, classes: tuple[str, ...]) -> None:
        super().__init__(length, name=str(classes))
        self.classes = classes  # type: ignore[assignment]


def test_other_classes_are_refused_whatever_is_allowed(tmp_path: Path) -> None:
    with toy_models():
        train(toy_config(tmp_path), data=(ToyImages(40), ToyImages(10)))
        config = toy_config(tmp_path, resume="auto", allow_changed_data=True)
        for classes, told in (
            (("a", "b", "d"), "4 then, 3 now; gone: c"),
            (("b", "a", "c", "d"), "in another order"),
        ):
            data = (OtherClasses(40, classes), OtherClasses(10, classes))
            with pytest.raises(CheckpointError, match=f"{told}.*--finetune"):
                train(config, data=data)


class StopsAt(ToyImages):
    """Training images the 15th of which sends SIGTERM in the second epoch, once."""

    sent = False

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
        if (index, epoch) == (15, 1) and not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)
        return super().load(index, seed=seed, epoch=epoch)


@pytest.mark.parametrize(("length", "steps"), [(8, 2), (60, 15)])
def test_an_interrupted_epoch_begins_anew_with_changed_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int, steps: int
) -> None:
    config = toy_config(tmp_path, batch_size=4, save_every=1, epochs=3, log_every=1)
    with toy_models():
        stopped = train(config, data=(StopsAt(40), ToyImages(10)))
        assert (stopped.status, stopped.epoch) == ("stopped", 1) and stopped.step > 2
        config = config.replace(
            resume="auto", allow_changed_data=True, progress="plain", keep=2, save_every=100
        )

        def stop(*args: object) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "train_step", stop)
            with pytest.raises(KeyboardInterrupt):
                train(config, data=(ToyImages(length), ToyImages(10)))
        told = capsys.readouterr().out
        assert f"epoch 2, of which {stopped.step} steps were done, begins anew" in told
        train(config.replace(allow_changed_data=False), data=(ToyImages(length), ToyImages(10)))
    assert f"epoch 2, step 0 of {steps}" in capsys.readouterr().out
    lines = metrics(tmp_path)
    trained = [(line["epoch"], line["step"]) for line in lines if line["kind"] == "train"]
    new = [(epoch, step) for epoch in (1, 2) for step in range(1, steps + 1)]
    assert trained == [(0, step) for step in range(1, 11)] + new
    judged = [line for line in lines if line["kind"] == "eval"]
    assert [line["epoch"] for line in judged] == [0, 1, 2]
    assert not any("skipped" in line for line in judged)
    assert checkpoint.saved(tmp_path / "checkpoints")[0].epoch == 3
    best = checkpoint.read(tmp_path / "best.pt")
    assert best["best"] and best["position"]["step"] == 0
