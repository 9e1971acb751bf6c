"""Scenes of discs, squares and triangles, drawn from their numbers: data to try scenes on."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rlawrap.train.data.seeding import derive_seed

#: The name of this data where a data set is asked for.
SHAPES = "shapes"
#: The shapes, in order of their labels from 1 on, with a typical colour of each.
COLOURS = {"disc": (0.8, 0.3, 0.3), "square": (0.3, 0.7, 0.3), "triangle": (0.3, 0.35, 0.8)}
#: How far a colour may be from the typical one, and each pixel from the colour.
SPREAD = 0.25
NOISE = 0.08
#: Scenes of each split.
LENGTHS = {"train": 200, "test": 50}

Wanted = Literal["detection", "instance", "segmentation"]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A scene: image [3, H, W] in 0..1, labels [n] and masks bool [n, H, W] of what is seen."""

    image: Tensor
    labels: Tensor
    masks: Tensor


def draw(number: int, size: int, split: str = "train") -> Drawn:
    """Scene `number` of a split: one to four shapes on grey, the later ones over the earlier.

    >>> scene = draw(0, 32)
    >>> scene.image.shape, scene.masks.shape[1:], bool((scene.image == draw(0, 32).image).all())
    (torch.Size([3, 32, 32]), torch.Size([32, 32]), True)
    """
    random = torch.Generator().manual_seed(derive_seed(f"shapes {split}", number))

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=random)

    image = uniform(0.2, 0.8, 1, 1, 1).expand(3, size, size).clone()
    owner = torch.full((size, size), -1)
    count = int(torch.randint(1, 5, (), generator=random))
    labels = torch.randint(1, len(COLOURS) + 1, (count,), generator=random)
    for place, label in enumerate(labels.tolist()):
        radius = float(uniform(0.1, 0.22)) * size
        x, y = (float(uniform(radius, size - radius)) for _ in range(2))
        inside = _inside(label, size, x, y, radius)
        colour = torch.tensor(list(COLOURS.values())[label - 1]) + uniform(-SPREAD, SPREAD, 3)
        image[:, inside] = colour[:, None]
        owner[inside] = place
    image += NOISE * torch.randn(image.shape, generator=random)
    masks = owner[None] == torch.arange(count)[:, None, None]
    seen = masks.flatten(1).any(1)
    return Drawn(image=image.clamp(0, 1), labels=labels[seen], masks=masks[seen])


def _inside(label: int, size: int, x: float, y: float, radius: float) -> Tensor:
    """The pixels of a shape around (x, y)."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    across, down = columns - x, rows - y
    if label == 1:
        return across**2 + down**2 <= radius**2
    if label == 2:
        return (across.abs() <= radius) & (down.abs() <= radius)
    return (down <= radius) & (down >= -radius + 2 * across.abs())


class Shapes:
    """A split of such scenes, as the tasks take them.

    wanted: what a target holds, as in `SceneDataset`; of segmentation class 0 is the background.
    length: so many scenes at most. Training images are turned over from left to right half of
    the time, as (seed, epoch, index) say.
    """

    in_channels = 3

    def __init__(self, split: str, wanted: Wanted, size: int, length: int | None = None) -> None:
        self.split = split
        self.augmented = split == "train"
        self.wanted = wanted
        self.size = size
        self.length = min(length or LENGTHS[split], LENGTHS[split])
        self.classes = (("background",) if wanted == "segmentation" else ()) + tuple(COLOURS)
        self.description = f"{SHAPES}, {split}"

    def __len__(self) -> int:
        return self.length

    def for_judging(self) -> Shapes:
        """The same scenes without augmentation."""
        same = copy.copy(self)
        same.augmented = False
        return same

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, Any]:
        """Image float32 [3, H, W] in 0..1 and target."""
        scene = draw(index, self.size, self.split)
        image, masks = scene.image, scene.masks
        if self.augmented and derive_seed("augment", seed, epoch, index) % 2:
            image, masks = image.flip(-1), masks.flip(-1)
        if self.wanted == "segmentation":
            classes = torch.zeros(self.size, self.size, dtype=torch.int64)
            for label, mask in zip(scene.labels, masks, strict=True):
                classes[mask] = label
            return image, classes
        target: dict[str, Any] = {
            "boxes": boxes_of(masks),
            "labels": scene.labels,
            "area": masks.flatten(1).sum(1).float(),
            "iscrowd": torch.zeros_like(scene.labels),
            "image_id": torch.tensor(index + 1),
        }
        if self.wanted == "instance":
            target["masks"] = masks.to(torch.uint8)
        return image, target

    def fingerprint(self) -> str:
        """Digits that change with the length, the size, what is wanted, or how scenes are drawn."""
        what = f"{self.length} {self.size} {self.wanted}"
        digest = hashlib.blake2b(what.encode(), digest_size=16)
        digest.update(draw(0, self.size, self.split).image.numpy().tobytes())
        return digest.hexdigest()


def boxes_of(masks: Tensor) -> Tensor:
    """The boxes around masks bool [n, H, W], none of them empty: float32 [n, 4], XYXY.

    >>> mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    >>> mask[0, 1, 1:3] = True
    >>> boxes_of(mask).tolist()
    [[1.0, 1.0, 3.0, 2.0]]
    """
    found = []
    for mask in masks:
        rows, columns = torch.where(mask)
        found.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
