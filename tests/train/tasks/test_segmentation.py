from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rlawrap.errors import ConfigError
from rlawrap.train import evaluate, train
from rlawrap.train.data.loader import Batch
from rlawrap.train.tasks.find import make_task
from tests.train.scene_toys import scene_config
from tests.train.toys import metrics

CHANCE = 25.0  # per cent, of four classes


def segmentation(output: Path, **changes: Any) -> Any:
    values = {"task": "segmentation", "head": "fcn", "head_args": {}, **changes}
    return scene_config(output, **values)


def test_a_short_run_is_far_better_than_chance(tmp_path: Path) -> None:
    changes = {"epochs": 8, "subset": 64, "lr": 0.1, "batch_size": 8}
    result = train(segmentation(tmp_path, **changes))
    assert result.best is not None and result.best["miou"] > 1.5 * CHANCE
    assert result.message.startswith("finished: best miou ")
    judged = metrics(tmp_path)[-1]
    assert {"loss", "miou", "pixel_accuracy", "train_pixel_accuracy"} <= set(judged)
    assert (tmp_path / "confusion" / "epoch0001.csv").read_text().startswith("true \\ predicted,ba")
    again = evaluate(tmp_path, workers=0, device="cpu")
    assert again.to_dict()["miou"] == pytest.approx(result.best["miou"])
    assert [each["name"] for each in again.details["classes"]][:2] == ["background", "disc"]


class Head(nn.Module):
    """The logits that it was given, with an auxiliary head."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Any) -> dict[str, torch.Tensor]:
        return {"out": self.logits, "aux": 2 * self.logits}


def test_pixels_of_no_class_do_not_count(tmp_path: Path) -> None:
    task = make_task(segmentation(tmp_path))
    logits = torch.randn(2, 4, 2, 2)
    targets = torch.tensor([[[0, 1], [255, 255]], [[3, 3], [2, 255]]])
    batch = Batch(torch.zeros(2, 3, 2, 2), targets, torch.ones(2), 2, 2, True, [])
    losses = task.loss(Head(logits), batch)
    expected = torch.zeros(())
    for row, counted in ((0, 2), (1, 3)):
        for factor, weight in ((1, 1.0), (2, 0.5)):
            total = F.cross_entropy(
                factor * logits[row : row + 1],
                targets[row : row + 1],
                ignore_index=255,
                reduction="sum",
            )
            expected += weight * total / counted
    torch.testing.assert_close(losses.total, expected)
    right = (logits.argmax(1) == targets).flatten(1).sum(1) / torch.tensor([2, 3])
    torch.testing.assert_close(losses.parts, 100 * right.sum()[None])


def test_a_classifier_is_no_segmenter(tmp_path: Path) -> None:
    code = tmp_path / "nets.py"
    code.write_text(
        "from torch import nn\n\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, num_classes, 1), nn.AdaptiveAvgPool2d(1))\n"
    )
    with pytest.raises(ConfigError, match=r"\(1, 4, 1, 1\) for one image.*\(1, 4, 32, 32\)"):
        train(segmentation(tmp_path / "run", head=None, arch=f"{code}:net"))
