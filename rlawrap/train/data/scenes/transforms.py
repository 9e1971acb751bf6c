"""What happens to a scene between the file and the network, with all that is in it.

Boxes and masks are torchvision's tv_tensors, so that its transforms move them along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.train.data.scenes.augment import SceneAugment

#: Pixels that belong to no class: not learned, not judged.
IGNORED = 255
#: An image uint8 [3, H, W] with what is in it ("boxes" and "masks" or "classes" as tv_tensors).
Item = tuple[Tensor, dict[str, Any]]
Transform = Callable[[Tensor, dict[str, Any]], Item]


class Drawn(nn.Module):
    """Resize to a drawn size: a shorter side of `sizes`, then a factor of `jitter`."""

    def __init__(self, config: SceneAugment) -> None:
        super().__init__()
        self.config = config

    def forward(self, image: Tensor, target: dict[str, Any]) -> Item:
        height, width = image.shape[-2:]
        factor = 1.0
        if self.config.sizes:
            drawn = int(torch.randint(len(self.config.sizes), ()))
            factor = self.config.sizes[drawn] / min(height, width)
            if self.config.max_size is not None:
                factor = min(factor, self.config.max_size / max(height, width))
        if self.config.jitter is not None:
            low, high = self.config.jitter
            factor *= low + (high - low) * float(torch.rand(()))
        return resized(image, target, factor)


def resized(image: Tensor, target: dict[str, Any], factor: float) -> Item:
    """A scene `factor` times as large, at least a pixel each way; areas with it."""
    from torchvision.transforms.v2 import functional as F

    height, width = image.shape[-2:]
    size = [max(1, round(height * factor)), max(1, round(width * factor))]
    if size == [height, width]:
        return image, target
    grown = size[0] * size[1] / (height * width)
    moved = {
        name: F.resize(value, size, antialias=True) if _moves(value) else value
        for name, value in target.items()
    }
    if "area" in target:
        moved["area"] = target["area"] * grown
    return F.resize(image, size, antialias=True), moved


class Crop(nn.Module):
    """Cut out a piece at a random place; what is left of a thing decides whether it stays."""

    def __init__(self, config: SceneAugment) -> None:
        super().__init__()
        assert config.crop is not None
        self.height, self.width = config.crop
        self.config = config

    def forward(self, image: Tensor, target: dict[str, Any]) -> Item:
        image, target = self._filled(image, target)
        height, width = image.shape[-2:]
        top = int(torch.randint(height - self.height + 1, ()))
        left = int(torch.randint(width - self.width + 1, ()))
        return self._cut(image, target, top, left)

    def _filled(self, image: Tensor, target: dict[str, Any]) -> Item:
        """At least as large as the piece, by filling up to the right and below."""
        from torchvision.transforms.v2 import functional as F

        height, width = image.shape[-2:]
        padding = [0, 0, max(0, self.width - width), max(0, self.height - height)]
        if not any(padding):
            return image, target
        moved = {
            name: F.pad(value, padding, fill=IGNORED if name == "classes" else 0)
            if _moves(value)
            else value
            for name, value in target.items()
        }
        return F.pad(image, padding, fill=0), moved

    def _cut(self, image: Tensor, target: dict[str, Any], top: int, left: int) -> Item:
        from torchvision.transforms.v2 import functional as F

        def cut(value: Tensor) -> Tensor:
            return F.crop(value, top, left, self.height, self.width)

        moved = {name: cut(each) if _moves(each) else each for name, each in target.items()}
        if "boxes" not in target:
            return cut(image), moved
        # Boxes are cut by hand: whether torchvision clips them is a matter of its release.
        before = target["boxes"].as_subclass(Tensor)
        boxes, kept = clip_boxes(
            before,
            (left, top, left + self.width, top + self.height),
            min_share=self.config.min_share,
            min_side=self.config.min_side,
        )
        share = _areas(boxes) / _areas(before).clamp_min(1e-6)
        moved["boxes"] = boxes
        moved["area"] = target["area"] * share
        if "masks" in moved:
            kept &= moved["masks"].bool().flatten(1).any(1)
        for name in ("boxes", "labels", "area", "iscrowd", "masks"):
            if name in moved:
                moved[name] = moved[name][kept]
        size = (self.height, self.width)
        return cut(image), {**moved, "boxes": as_boxes(moved["boxes"], size)}


def clip_boxes(
    boxes: Tensor, window: tuple[float, float, float, float], *, min_share: float, min_side: float
) -> tuple[Tensor, Tensor]:
    """Boxes [n, 4] as seen in a window (XYXY), and which of them stay: bool [n].

    A box stays when at least `min_share` of its area and `min_side` pixels each way are inside.

    >>> boxes = torch.tensor([[0., 0., 10., 10.], [8., 8., 18., 18.]])
    >>> clipped, stays = clip_boxes(boxes, (0, 0, 10, 10), min_share=0.25, min_side=1)
    >>> clipped.tolist(), stays.tolist()
    ([[0.0, 0.0, 10.0, 10.0], [8.0, 8.0, 10.0, 10.0]], [True, False])
    """
    left, top, right, bottom = window
    low = torch.tensor([left, top, left, top], dtype=boxes.dtype)
    high = torch.tensor([right, bottom, right, bottom], dtype=boxes.dtype)
    clipped = boxes.clamp(low, high) - low
    sides = clipped[:, 2:] - clipped[:, :2]
    inside = _areas(clipped) >= min_share * _areas(boxes)
    return clipped, inside & (sides >= min_side).all(1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _moves(value: Any) -> bool:
    from torchvision import tv_tensors

    return isinstance(value, tv_tensors.TVTensor)


def as_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes XYXY in an image of a size (height, width), as torchvision's transforms know them."""
    from torchvision import tv_tensors

    boxes = boxes.as_subclass(Tensor)
    made: Tensor = tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
        boxes, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=size
    )
    return made


def training_transform(config: SceneAugment) -> Transform:
    """The training transform, of an image uint8 and a target; it draws from torch's generator.

    Call it inside `local_randomness`.
    """
    from torchvision.transforms import v2

    steps: list[nn.Module] = []
    if config.photometric:
        steps.append(v2.RandomPhotometricDistort())
    if config.sizes or config.jitter is not None:
        steps.append(Drawn(config))
    if config.crop is not None:
        steps.append(Crop(config))
    if config.flip:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    return _Steps(steps)


def eval_transform() -> Transform:
    """The transform of test scenes: they stay as they are, so that figures are of their pixels."""
    return _Steps([])


class _Steps:
    def __init__(self, steps: list[nn.Module]) -> None:
        self.steps = steps

    def __call__(self, image: Tensor, target: dict[str, Any]) -> Item:
        for step in self.steps:
            image, target = step(image, target)
        return image, target
