from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlawrap.errors import ConfigError, DataError, TrainError
from rlawrap.train import TrainConfig, train
from rlawrap.train.data.sampler import epoch_order
from rlawrap.train.loop import judging
from rlawrap.train.loop.setup import kernels
from rlawrap.train.store import checkpoint
from tests.train.toys import Group, ToyImages, metrics, toy_config, toy_models, wait_for


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    with toy_models():
        yield


def data(**options: Any) -> tuple[ToyImages, ToyImages]:
    return ToyImages(**options), ToyImages(10)


def test_a_run_learns_and_leaves_its_folder(tmp_path: Path) -> None:
    result = train(toy_config(tmp_path / "run", epochs=6, ema=0.0), data=data())
    assert result.status == "finished" and (result.epoch, result.step) == (6, 0)
    lines = metrics(tmp_path / "run")
    evaluations = [line for line in lines if line["kind"] == "eval"]
    assert [line["epoch"] for line in evaluations] == list(range(6))
    assert evaluations[-1]["train_loss"] < 0.8 * evaluations[0]["train_loss"]
    assert result.last == {k: v for k, v in evaluations[-1].items() if k != "kind"}
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert best.pop("checkpoint").startswith(f"epoch{best['epoch'] + 1:04d}-step000000-")
    assert best == result.best
    assert best["top1"] == max(line["top1"] for line in evaluations)
    assert sum(line["images"] for line in lines if line["kind"] == "train") == 6 * 40
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "finished"
    saved = checkpoint.read(tmp_path / "run" / "best.pt")
    assert saved["standing"]["last"] == best


def test_the_training_loss_of_an_epoch_is_the_mean_of_its_lines(tmp_path: Path) -> None:
    train(toy_config(tmp_path, epochs=1, log_every=2), data=data())
    *intervals, epoch = metrics(tmp_path)
    total = sum(line["loss"] * line["images"] for line in intervals)
    assert epoch["train_loss"] == pytest.approx(total / 40, rel=1e-12)
    right = sum(line["top1"] * line["images"] for line in intervals)
    assert epoch["train_top1"] == pytest.approx(right / 40, rel=1e-12)


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(toy_config(tmp_path, epochs=1), data=data())
    assert torch.equal(torch.get_rng_state(), before)


class Poisoned(ToyImages):
    """Image 7 is not a number in epoch 1."""

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
        image, label = super().load(index, seed=seed, epoch=epoch)
        return (image * float("nan") if (index, epoch) == (7, 1) else image), label


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    config = toy_config(tmp_path, save_every=1, keep=9, log_every=50)
    images = Poisoned(40)
    with pytest.raises(TrainError) as caught:
        train(config, data=(images, ToyImages(10)))
    position = engine_step_of(7, config.seed, epoch=1)
    assert f"the loss is not finite (NaN or infinite) at step {position + 1} of epoch 2" in str(
        caught.value
    )
    good = checkpoint.saved(tmp_path / "checkpoints")[0]
    assert str(good.path) in str(caught.value)
    assert (good.epoch, good.step) == (1, position)
    weights = checkpoint.read(good.path)["model"]
    assert all(torch.isfinite(value).all() for value in weights.values())
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "failed" and "not finite" in status["message"]


def test_a_test_loss_that_is_not_finite_stops_before_anything_is_called_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, calls = judging.judge_model, iter(range(9))

    def scripted(*args: Any, **kwargs: Any) -> Any:
        loss = float("nan") if next(calls) == 1 else 0.5
        return dataclasses.replace(judge(*args, **kwargs), loss=loss)

    monkeypatch.setattr(judging, "judge_model", scripted)
    config = toy_config(tmp_path, save_every=1, keep=9, ema=0.0)
    with pytest.raises(TrainError, match="the test loss is not finite") as caught:
        train(config, data=data())
    assert "after step 5 of epoch 2" in str(caught.value)
    # The newest one holds the weights that were judged.
    newest, good, *_ = checkpoint.saved(tmp_path / "checkpoints")
    assert (newest.epoch, newest.step, good.step) == (1, 5, 4)
    assert f"The last good checkpoint is {good.path}." in str(caught.value)
    assert checkpoint.read(tmp_path / "best.pt")["position"] == {"epoch": 1, "step": 0}
    assert [line["epoch"] for line in metrics(tmp_path) if line["kind"] == "eval"] == [0]
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    config = toy_config(tmp_path, lr=1e38, save_every=1, model_kwargs={"scale": 1e4})
    with pytest.raises(TrainError, match=r"the weights are not finite.*No checkpoint is there"):
        train(config, data=data())
    assert checkpoint.saved(tmp_path / "checkpoints") == []


def test_with_fp16_a_loss_that_is_not_finite_stops_too(tmp_path: Path) -> None:
    config = toy_config(tmp_path, amp="fp16", ema=0.0, model_kwargs={"scale": 1e38})
    with pytest.raises(TrainError, match=r"loss is not finite.*step 1 of epoch 1"):
        train(config, data=data())
    assert checkpoint.saved(tmp_path / "checkpoints") == []


def engine_step_of(index: int, seed: int, epoch: int) -> int:
    return epoch_order(40, seed, epoch).tolist().index(index) // 9


def test_early_stopping_and_the_best_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([50.0, 60.0, 60.0, 55.0, 70.0])
    judge = judging.judge_model

    def scripted(*args: Any, **kwargs: Any) -> Any:
        return dataclasses.replace(judge(*args, **kwargs), top1=next(scores))

    monkeypatch.setattr(judging, "judge_model", scripted)
    config = toy_config(tmp_path, epochs=9, patience=2, ema=0.0)
    result = train(config, data=data())
    assert result.epoch == 4 and result.best is not None
    assert (result.best["epoch"], result.best["top1"]) == (1, 60.0)
    assert checkpoint.read(tmp_path / "best.pt")["position"] == {"epoch": 2, "step": 0}
    assert "no better one in 2 epochs" in result.message
    assert train(config.replace(resume="auto"), data=data()).epoch == 4


def test_the_last_words_name_the_figure_that_chose_the_best_epoch(tmp_path: Path) -> None:
    result = train(toy_config(tmp_path, epochs=1, monitor="loss"), data=data())
    assert result.best is not None
    loss = f"{result.best['ema_loss']:.4f}"
    assert result.message.startswith(f"finished: best loss {loss} at epoch 1,")


def test_a_label_out_of_range_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image 3: label 9"):
        train(toy_config(tmp_path), data=data(bad={3: 9}))


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainError, match=r"--output"):
        train(toy_config(tmp_path / "file" / "run"), data=data())


def test_sync_bn_without_cuda_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CUDA"):
        train(toy_config(tmp_path / "run", sync_bn=True), data=data())
    assert not (tmp_path / "run").exists()


def test_tf32_is_as_asked_and_put_back() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for wanted in (True, False, None):
        with kernels(TrainConfig(tf32=wanted), torch.device("cpu")):
            inside = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        assert inside == (before if wanted is None else (wanted, wanted))
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


def test_drop_last_needs_a_whole_batch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="drop_last: the 8 training images"):
        train(toy_config(tmp_path, drop_last=True), data=(ToyImages(8), ToyImages(10)))


def test_tensorboard_gets_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(toy_config(tmp_path, epochs=1, tensorboard=True), data=data())
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    line = metrics(tmp_path)[-1]
    (event,) = events.Scalars("eval/loss")
    assert event.step == line["global_step"]
    assert event.value == pytest.approx(line["loss"], rel=1e-6)


def test_an_error_in_the_first_process_ends_all_with_its_message(
    tmp_path: Path,
) -> None:
    train(toy_config(tmp_path / "run"), data=data())
    group = Group(2, toy_config(tmp_path / "run", lr=0.5))
    assert group.wait() == [2, 2]
    assert "lr: 0.05 there, 0.5 now" in group.errors()


def test_an_error_in_another_process_is_in_the_status(tmp_path: Path) -> None:
    config = toy_config(tmp_path / "run", batch_size=8)
    index = epoch_order(40, config.seed, 0)[7].item()  # the last of the batch: of process 1
    group = Group(2, config, images={"bad": {index: 9}})
    assert group.wait() in ([1, 2], [-6, 2])
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert status["message"].startswith(f"process 1: image {index}: label 9")


def test_an_error_that_is_none_of_ours_is_in_the_status_too(tmp_path: Path) -> None:
    class Broken(ToyImages):
        def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
            raise ZeroDivisionError("of the images")

    with pytest.raises(ZeroDivisionError):
        train(toy_config(tmp_path), data=(Broken(40), ToyImages(10)))
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["message"]) == ("failed", "ZeroDivisionError('of the images')")


def test_a_lost_process_ends_the_others_and_nothing_is_saved_after_it(tmp_path: Path) -> None:
    config = toy_config(tmp_path / "run", save_every=None, epochs=50)
    group = Group(2, config, images={"length": 60, "delay": 0.005})
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").is_file())
    group.signal(signal.SIGTERM, slice(0, 1))
    group.signal(signal.SIGKILL, slice(1, 2))
    assert group.wait() == [1, -signal.SIGKILL]
    assert checkpoint.saved(tmp_path / "run" / "checkpoints") == []


def test_a_real_network_on_the_builtin_images(tmp_path: Path) -> None:
    config = toy_config(
        tmp_path, arch="cifar_resnet20", epochs=1, subset=40, batch_size=20, image_size=8
    )
    result = train(config)
    assert result.last is not None and 0 <= result.last["top1"] <= 100
