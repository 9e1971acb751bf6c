from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlawrap.errors import ConfigError, RLAWarning
from rlawrap.train import TrainConfig, train
from rlawrap.train.data.loader import Batch
from rlawrap.train.tasks.classification import Classification
from tests.train.toys import ToyImages, toy_config, toy_models

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.0, 1.0]])
BATCH = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), torch.ones(2), 2, 2, True, [])


def task() -> Classification:
    made = Classification(TrainConfig(arch="mine"))
    made.classes = ("a", "b", "c")
    return made


@pytest.mark.parametrize(
    "other", [torch.ones(2, 8), torch.ones(2, 2), torch.ones(2, 8, 4, 4), torch.ones(()), "text"]
)
def test_outputs_that_are_no_logits_take_no_part_in_the_loss(other: Any) -> None:
    expected = F.cross_entropy(LOGITS, BATCH.targets, reduction="sum")
    for outputs in ((LOGITS, other), {"logits": LOGITS, "other": other}):
        trained = task()
        with pytest.warns(RLAWarning, match="mine: gives .* which is not learned from"):
            assert trained.loss(lambda _, out=outputs: out, BATCH).total == expected
        trained.loss(lambda _, out=outputs: out, BATCH)  # a warning would be an error


def test_auxiliary_heads_count_less(recwarn: pytest.WarningsRecorder) -> None:
    expected = F.cross_entropy(LOGITS, BATCH.targets, reduction="sum")
    aux = 0.3 * F.cross_entropy(2 * LOGITS, BATCH.targets, reduction="sum")
    total = task().loss(lambda _: (LOGITS, 2 * LOGITS, None), BATCH).total
    torch.testing.assert_close(total, expected + aux)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        (None, "shape None for"),
        ((torch.ones(2, 8), LOGITS), r"shape \(2, 8\) and \(2, 3\) for"),
        ({"aux": torch.ones(2, 2)}, r"shape 'aux' \(2, 2\) for"),
    ],
)
def test_outputs_without_logits_are_shown(outputs: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        task().loss(lambda _: outputs, BATCH)


class WithFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.stem(x).mean((2, 3))
        return {"logits": self.fc(features), "features": features}


def test_what_is_not_learned_from_is_said_at_the_start(tmp_path: Path) -> None:
    from rlawrap.models import model_registry as registry

    with toy_models():
        registry._BUILDERS["toy"] = lambda num_classes: WithFeatures()
        config = toy_config(tmp_path / "run", epochs=1)
        train(config, data=(ToyImages(), ToyImages(10)))
    said = (tmp_path / "run" / "log.txt").read_text()
    assert said.count("note: toy: gives 'features' (1, 8) beside the logits") == 1


@pytest.mark.parametrize(
    ("arch", "size", "message"),
    [
        ("torchvision:squeezenet1_0", 8, "squeezenet1_0: fails on an image of the data.*image-siz"),
        ("torchvision:r3d_18", 16, "r3d_18: fails on an image of the data"),
    ],
)
def test_a_named_network_for_other_images_is_refused_at_the_start(
    arch: str, size: int, message: str, tmp_path: Path
) -> None:
    config = TrainConfig(
        arch=arch, image_size=size, output=str(tmp_path / "run"), workers=0, progress="none"
    )
    with pytest.raises(ConfigError, match=message):
        train(config)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
