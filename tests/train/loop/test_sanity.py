from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlawrap.errors import ConfigError, DataError, TrainError
from rlawrap.models import model_registry as registry
from rlawrap.train import train
from rlawrap.train.loop.sanity import GRADIENT_LIMIT, LEAP_LIMIT, WEIGHT_LIMIT, Sanity
from rlawrap.train.store import checkpoint
from tests.train.toys import ToyImages, final_state, toy_config, toy_models

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    with toy_models():
        yield


def one_by_one(num_classes: int = 4, depth: int = 6) -> nn.Module:
    """Norms over 1x1 maps, one behind the other: with a batch of equal images each divides by 0."""
    norms = [layer for _ in range(depth) for layer in (nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), *norms, nn.Flatten(), nn.Linear(8, num_classes)
    )


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry._BUILDERS, "one_by_one", one_by_one)
    return "one_by_one"


class Alike(ToyImages):
    """Every image is the same one."""

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
        return torch.ones(3, 8, 8), index % 4


@pytest.mark.parametrize("changes", [{"batch_size": 16}, {"batch_size": 11, "accumulate": 11}])
def test_a_lone_image_does_no_harm(tmp_path: Path, deep: str, changes: dict[str, Any]) -> None:
    config = toy_config(tmp_path, arch=deep, ema=0.0, lr=0.01, **changes)
    train(config, data=(ToyImages(33), ToyImages(10)))
    weights = final_state(tmp_path)["model"]
    assert max(float(value.abs().max()) for value in weights.values()) < 50


@pytest.mark.parametrize(("depth", "clip"), [(6, None), (12, 1.0)])
def test_a_finite_but_absurd_step_stops_the_run(
    tmp_path: Path, deep: str, depth: int, clip: float | None
) -> None:
    kwargs = {"depth": depth}
    config = toy_config(tmp_path, arch=deep, model_kwargs=kwargs, save_every=1, clip=clip)
    with pytest.raises(TrainError, match=r"absurd \(largest entry of the gradient .*e\+") as caught:
        train(config, data=(Alike(33), ToyImages(10)))
    assert "step 0 of epoch 1. No checkpoint is there." in str(caught.value)
    assert checkpoint.saved(tmp_path / "checkpoints") == []
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "failed" and "absurd" in status["message"]


def judged(gradient: float, before: float, after: float) -> bool:
    """Whether a step is good."""
    layer = nn.Linear(1, 2, bias=False)
    sanity = Sanity(layer, CPU)
    nn.init.constant_(layer.weight, before)
    layer.weight.grad = torch.full_like(layer.weight, gradient)
    size = sanity.before()
    nn.init.constant_(layer.weight, after)
    sanity.after(3, size)
    assert int(sanity.bad_step) in (-1, 3)
    return int(sanity.bad_step) < 0


@pytest.mark.parametrize(
    ("gradient", "before", "after", "good"),
    [
        (1.0, 0.5, 0.4, True),
        (1e6, 0.0, 100.0, True),
        (0.9 * GRADIENT_LIMIT, 1.0, 1.0, True),
        (1.1 * GRADIENT_LIMIT, 1.0, 1.0, False),
        (1e38, 1.0, 1.0, False),
        (float("inf"), 1.0, 1.0, True),  # a loss scaler skips it
        (1.0, 1.0, 1.9 * LEAP_LIMIT, True),
        (1.0, 1.0, 2.1 * LEAP_LIMIT, False),
        (1.0, 0.9 * WEIGHT_LIMIT, 1.1 * WEIGHT_LIMIT, False),
        (1.0, 1.0, float("nan"), False),
    ],
)
def test_what_is_absurd(gradient: float, before: float, after: float, good: bool) -> None:
    assert judged(gradient, before, after) is good


def test_the_first_bad_step_is_kept() -> None:
    layer = nn.Linear(1, 2)
    sanity = Sanity(layer, CPU)
    for step, value in enumerate((1.0, 1e30, float("nan"))):
        size = sanity.before()
        nn.init.constant_(layer.weight, value)
        sanity.after(step, size)
    assert int(sanity.bad_step) == 1 and "1e+30 after" in sanity.words()


def test_batches_of_one_and_one_image_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"batch_size=1.*--batch-size"):
        train(toy_config(tmp_path / "run", batch_size=1), data=(ToyImages(9), ToyImages(4)))
    with pytest.raises(DataError, match="1 image to train on"):
        train(toy_config(tmp_path / "run"), data=(ToyImages(1), ToyImages(4)))
    assert not (tmp_path / "run").exists()


def test_one_class_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    images = ToyImages(9)
    images.classes = ("a",)
    with pytest.raises(DataError, match="one class, a, with 9 images"):
        train(toy_config(tmp_path / "run"), data=(images, ToyImages(4)))
    assert not (tmp_path / "run").exists()
