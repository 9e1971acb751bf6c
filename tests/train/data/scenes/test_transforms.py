from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

from rlawrap.train.data.scenes.augment import SceneAugment
from rlawrap.train.data.scenes.transforms import (
    as_boxes,
    clip_boxes,
    eval_transform,
    training_transform,
)
from rlawrap.train.data.seeding import local_randomness

# Two squares, marked in the image and in their masks.
BOXES = torch.tensor([[4.0, 6, 12, 14], [20, 2, 28, 8]])


def scene() -> tuple[Tensor, dict[str, Any]]:
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    masks = torch.zeros(2, 20, 30, dtype=torch.uint8)
    for number, (left, top, right, bottom) in enumerate(BOXES.int().tolist()):
        image[number, top:bottom, left:right] = 255
        masks[number, top:bottom, left:right] = 1
    target = {
        "boxes": as_boxes(BOXES, (20, 30)),
        "labels": torch.tensor([1, 2]),
        "area": torch.tensor([64.0, 48.0]),
        "iscrowd": torch.zeros(2, dtype=torch.int64),
        "image_id": torch.tensor(5),
        "masks": tv_tensors.Mask(masks),
    }
    return image, target


def changed(config: SceneAugment, number: int = 0) -> tuple[Tensor, dict[str, Any]]:
    with local_randomness("test", number):
        return training_transform(config)(*scene())


def check(image: Tensor, target: dict[str, Any], slack: float = 0.0) -> None:
    """Boxes, masks and labels are where the image has their squares."""
    for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
        seen = image[int(label) - 1] > 127
        assert torch.equal(seen, mask.bool()) or (seen ^ mask.bool()).sum() <= 60 * slack
        rows, columns = torch.where(seen)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert max(abs(float(a) - float(b)) for a, b in zip(found, box, strict=True)) <= slack


def test_a_flip_moves_boxes_and_masks() -> None:
    image, target = changed(SceneAugment(flip=1.0))
    assert target["boxes"].tolist() == [[18, 6, 26, 14], [2, 2, 10, 8]]
    check(image, target)


def test_sizes_and_jitter() -> None:
    image, target = changed(SceneAugment(flip=0, sizes=(40,)))
    assert image.shape == (3, 40, 60) and target["boxes"][0].tolist() == [8, 12, 24, 28]
    assert target["area"].tolist() == [256, 192]
    check(image, target)
    image, _ = changed(SceneAugment(flip=0, sizes=(40,), max_size=45))
    assert image.shape == (3, 30, 45)
    drawn = {changed(SceneAugment(flip=0, sizes=(10, 20, 40)), n)[0].shape[1] for n in range(20)}
    assert drawn == {10, 20, 40}
    for number in range(5):
        image, target = changed(SceneAugment(flip=0, jitter=(0.5, 2.0)), number)
        assert 10 <= image.shape[1] <= 40
        check(image, target, slack=1.0)


def test_crops_keep_what_is_left_of_things() -> None:
    counts = set()
    for number in range(30):
        image, target = changed(SceneAugment(flip=0, crop=(12, 14), min_share=0.3), number)
        assert image.shape == (3, 12, 14) and target["masks"].shape[1:] == (12, 14)
        check(image, target)
        sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
        whole = torch.tensor([64.0, 48.0])[target["labels"] - 1]
        assert torch.equal(target["area"], sides.prod(1)) and (sides.prod(1) >= 0.3 * whole).all()
        assert int(target["image_id"]) == 5
        counts.add(len(target["boxes"]))
    assert counts == {0, 1, 2} or counts == {0, 1}


def test_a_scene_smaller_than_the_crop_is_filled_up() -> None:
    image, target = changed(SceneAugment(flip=0, crop=(32, 32)))
    assert image.shape == (3, 32, 32) and torch.equal(target["boxes"], BOXES)
    assert image[:, 20:].sum() == 0 and target["masks"].shape == (2, 32, 32)


def test_photometric_changes_leave_boxes_alone() -> None:
    images = [changed(SceneAugment(flip=0, photometric=True), number)[0] for number in range(8)]
    assert len({int(image.long().sum()) for image in images}) > 3
    assert all(image.dtype == torch.uint8 for image in images)


def test_evaluation_changes_nothing() -> None:
    image, target = eval_transform()(*scene())
    assert torch.equal(image, scene()[0]) and torch.equal(target["boxes"], BOXES)


def test_slivers_are_no_things() -> None:
    boxes = torch.tensor([[9.5, 0, 10.4, 10], [5, 5, 5, 9]])
    _, stays = clip_boxes(boxes, (0, 0, 10, 10), min_share=0, min_side=1)
    assert stays.tolist() == [False, False]
    assert clip_boxes(torch.zeros(0, 4), (0, 0, 9, 9), min_share=0, min_side=1)[1].shape == (0,)
