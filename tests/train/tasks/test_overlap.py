from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rlawrap.errors import DataError
from rlawrap.train import Processes
from rlawrap.train.data.loader import Batch
from rlawrap.train.tasks.overlap import Overlap


def batch_of(targets: torch.Tensor, counted: int) -> Batch:
    return Batch(torch.zeros(1), targets, torch.ones(1), counted, 1, True, [])


def test_overlap_over_several_images() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 3, 4, 4)
    targets = torch.randint(0, 2, (3, 4, 4))  # there is nothing of class 2
    targets[0, 0, 0] = 255
    logits[:, 2] = -9
    judge = Overlap(("a", "b", "c"), torch.device("cpu"))
    for row in range(3):
        judge.add({"out": logits[row : row + 1]}, batch_of(targets[row : row + 1], 1))
    judge.add({"out": logits[:1]}, batch_of(1 - targets[:1], 0))
    judged = judge.total(Processes())
    seen, said = targets != 255, logits.argmax(1)
    each = []
    for number in (0, 1):
        true, taken = (targets == number) & seen, (said == number) & seen
        each.append(int((true & taken).sum()) / int((true | taken).sum()))
    assert judged.to_dict()["miou"] == pytest.approx(100 * sum(each) / 2)
    right = int(((said == targets) & seen).sum())
    assert judged.to_dict()["pixel_accuracy"] == pytest.approx(100 * right / 47)
    assert judged.to_dict()["loss"] == pytest.approx(
        float(F.cross_entropy(logits, targets, ignore_index=255)), rel=1e-5
    )
    assert judged.details["classes"][2] == {"name": "c", "iou": None} and judged.images == 3


def test_nothing_to_judge_by() -> None:
    judge = Overlap(("a", "b"), torch.device("cpu"))
    judge.add(torch.zeros(1, 2, 2, 2), batch_of(torch.full((1, 2, 2), 255), 1))
    with pytest.raises(DataError, match="no pixel of them has a class"):
        judge.total(Processes())
