from __future__ import annotations

import torch

from rlawrap.train.data.scenes.drawing import COLOURS, draw_classes, draw_things

FOUND = {
    "boxes": torch.tensor([[4.0, 4, 20, 16], [30, 20, 60, 40]]),
    "labels": torch.tensor([1, 2]),
    "scores": torch.tensor([0.9, 0.3]),
}


def has(drawing: torch.Tensor, colour: tuple[int, int, int]) -> bool:
    return bool((drawing == torch.tensor(colour).view(3, 1, 1)).all(0).any())


def test_boxes_are_drawn_large_enough_on_light_and_dark_images() -> None:
    for value in (0.0, 1.0):
        drawing = draw_things(torch.full((3, 48, 64), value), FOUND, ["tree", "car"])
        assert drawing.dtype == torch.uint8 and drawing.shape == (3, 384, 512)
        assert has(drawing, COLOURS[0]) and has(drawing, COLOURS[1])
        # The edge of the first box, eight times as large.
        assert tuple(drawing[:, 80, 32].tolist()) == COLOURS[0]
        # Names are black on the colours of their boxes, on any image.
        label = drawing[:, 38:48, 34:86]
        ground = (label == torch.tensor(COLOURS[0]).view(3, 1, 1)).all(0).float().mean()
        assert 0.4 < ground < 0.9 and label.sum(0).min() < 60


def test_least_score_and_no_names() -> None:
    image = torch.zeros(3, 480, 640, dtype=torch.uint8)
    drawing = draw_things(image, FOUND, ["tree", "car"], least_score=0.5, names=False)
    assert has(drawing, COLOURS[0]) and not has(drawing, COLOURS[1])
    assert torch.equal(draw_things(image, FOUND, [], least_score=0.95), image)


def test_masks_of_zeros_and_ones_and_of_probabilities() -> None:
    image = torch.zeros(1, 480, 640)
    mask = torch.zeros(2, 480, 640, dtype=torch.uint8)
    mask[0, 100:200, 100:200] = 1
    plain = draw_things(image, {**FOUND, "masks": mask}, ["tree", "car"])
    probable = draw_things(image, {**FOUND, "masks": mask[:, None] * 0.8}, ["tree", "car"])
    assert torch.equal(plain, probable) and plain[:, 150, 150].sum() > 0
    assert plain[:, 300, 300].sum() == 0


def test_classes_have_a_legend() -> None:
    classes = torch.zeros(60, 80, dtype=torch.int64)
    classes[10:20, 10:20] = 1
    classes[30:40] = 255
    drawing = draw_classes(torch.ones(3, 60, 80), classes, ["ground", "roof"])
    assert drawing.shape[2] == 480 and drawing.shape[1] > 360
    assert has(drawing[:, 360:], COLOURS[0])
    assert (drawing[:, 180:240, :] == 255).all()
    untouched = draw_classes(torch.ones(3, 60, 80), torch.zeros(60, 80), ["ground", "roof"])
    assert untouched.shape == (3, 360, 480)
