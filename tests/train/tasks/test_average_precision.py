from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from rlawrap.errors import DataError, RLAError
from rlawrap.train import Processes
from rlawrap.train.data.loader import Batch
from rlawrap.train.tasks.average_precision import AveragePrecision

SQUARE = [10.0, 10.0, 30.0, 30.0]


def target(number: int, boxes: list[list[float]], labels: list[int]) -> dict[str, Any]:
    tensor = torch.tensor(boxes).reshape(-1, 4)
    masks = torch.zeros(len(boxes), 64, 64, dtype=torch.uint8)
    for mask, box in zip(masks, boxes, strict=True):
        left, top, right, bottom = map(int, box)
        mask[top:bottom, left:right] = 1
    return {
        "boxes": tensor,
        "labels": torch.tensor(labels, dtype=torch.int64),
        "area": (tensor[:, 2] - tensor[:, 0]) * (tensor[:, 3] - tensor[:, 1]),
        "iscrowd": torch.zeros(len(boxes), dtype=torch.int64),
        "image_id": torch.tensor(number),
        "masks": masks,
    }


def found(boxes: list[list[float]], labels: list[int], scores: list[float]) -> dict[str, Any]:
    values = target(0, boxes, labels)
    masks = values["masks"].float()[:, None]
    return {"boxes": values["boxes"], "labels": values["labels"],
            "scores": torch.tensor(scores), "masks": masks}  # fmt: skip


def batch_of(*targets: dict[str, Any], counted: bool = True) -> Batch:
    rows = len(targets)
    return Batch([], list(targets), torch.ones(rows), rows * counted, rows, True, [])


def scores(*pairs: tuple[dict[str, Any], dict[str, Any]]) -> AveragePrecision:
    judge = AveragePrecision(("a", "b"), "box", "mask")
    for detections, there in pairs:
        judge.add([detections], batch_of(there))
    return judge


def test_figures_are_cocos_per_cent() -> None:
    # Class a: found, and in part (IoU 0.76) in a second image. Class b: another class there.
    part = [10.0, 10.0, 29.0, 26.0]
    judged = scores(
        (found([SQUARE], [1], [0.9]), target(1, [SQUARE], [1])),
        (found([part, SQUARE], [1, 2], [0.8, 0.7]), target(2, [SQUARE], [1])),
        (found([], [], []), target(3, [], [])),
    ).total(Processes())
    values = judged.to_dict()
    assert judged.images == 3
    # At IoU 0.50 to 0.75 (6 of 10 thresholds) both are right, above one of two: 51 of 101 points.
    expected = 100 * (6 + 4 * 51 / 101) / 10
    assert values["box_ap"] == pytest.approx(expected, abs=0.1)
    assert values["mask_ap"] == pytest.approx(expected, abs=0.1)
    assert values["box_ap50"] == pytest.approx(100) and values["box_ap_large"] is None
    assert judged.details["classes"][0]["box_ap"] == pytest.approx(expected, abs=0.1)
    assert judged.details["classes"][1] == {"name": "b", "box_ap": None, "mask_ap": None}


def test_the_order_and_the_process_of_images_do_not_matter() -> None:
    pairs = [
        (found([SQUARE], [1], [0.5]), target(number, [SQUARE] * (number % 2), [1] * (number % 2)))
        for number in range(1, 6)
    ]

    class Two(Processes):
        """Another process has judged the rest."""

        def gather(self, value: Any) -> list[Any]:
            other = scores(*pairs[:3])
            return [value, (other.numbers, other.metric.metric_state, 2)]

    whole = scores(*pairs).total(Processes())
    halves = scores(*pairs[:2:-1]).total(Two())
    assert halves.to_dict() == whole.to_dict() and halves.images == whole.images == 5
    assert (halves.skipped, whole.skipped) == (2, 0)


def test_images_of_weight_0_and_data_without_objects() -> None:
    judge = AveragePrecision(("a",), "box")
    judge.add([found([SQUARE], [1], [0.9])], batch_of(target(1, [SQUARE], [1]), counted=False))
    assert judge.numbers == []
    judge.add([found([SQUARE], [1], [0.9])], batch_of(target(1, [], [])))
    with pytest.raises(DataError, match="none of the 1 test images has an object"):
        judge.total(Processes())


def test_without_pycocotools_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(RLAError, match=r"pip install 'rlawrap\[train,detection\]'"):
        AveragePrecision(("a",), "box")
