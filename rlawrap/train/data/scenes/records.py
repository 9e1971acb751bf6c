"""Scenes and the things in them, as plain data: what every reader of annotations gives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

#: x and y of the upper left corner, x and y of the lower right one, in pixels from 0 on.
Box = tuple[float, float, float, float]
#: Outlines, each x, y, x, y, ... in pixels.
Polygons = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Rle:
    """A mask as COCO's run lengths: numbers of pixels, column by column, or as they are packed."""

    height: int
    width: int
    counts: tuple[int, ...] | str


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An image. file: below the root of its index. id: that of the annotations, else from 1 on.

    size: bytes of the file. mask: the file of the classes of its pixels, where that is known.
    """

    file: str
    id: int
    width: int
    height: int
    size: int = 0
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something in a scene. label: 1 to the number of classes. area: pixels of its mask or box.

    crowd: not to be learned, and no fault when it is found (COCO's crowds, VOC's difficult ones).
    shape: its mask, where there is one.
    """

    box: Box
    label: int
    area: float
    crowd: bool = False
    shape: Polygons | Rle | None = None


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What was not taken as it stands, why, how often, and where first."""

    reason: str
    count: int
    first: str

    def __str__(self) -> str:
        return f"{self.count} {self.reason} (first: {self.first})"


@dataclass(frozen=True, kw_only=True)
class SceneIndex:
    """The scenes of a split in a fixed order, and the things of each.

    classes: names, of label 1 and on; of masks of pixels (`Scene.mask`) that of number 0 first.
    category_ids: the numbers that the annotations have for them. source: the file or folder of the
    annotations, for messages.
    """

    root: Path
    source: str
    scenes: tuple[Scene, ...]
    things: tuple[tuple[Thing, ...], ...]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of the data, a sentence each."""
        return tuple(f"{self.source}: {entry}" for entry in self.left_out)

    def path(self, number: int) -> Path:
        """The image file of scene `number`."""
        return self.root / self.scenes[number].file

    def chosen(self, numbers: Sequence[int]) -> SceneIndex:
        """Those scenes alone, in that order."""
        return replace(
            self,
            scenes=tuple(self.scenes[number] for number in numbers),
            things=tuple(self.things[number] for number in numbers),
        )

    def fingerprint(self) -> str:
        """Depends on classes, scenes, sizes of files and things; not on where the data lies."""
        digest = hashlib.blake2b(repr((self.classes, self.category_ids)).encode(), digest_size=16)
        for scene, things in zip(self.scenes, self.things, strict=True):
            digest.update(repr((scene, things)).encode())
        return digest.hexdigest()
