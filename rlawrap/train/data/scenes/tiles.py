"""Large scenes cut to tiles: where they lie, what is in each, and their files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from rlawrap.errors import ConfigError
from rlawrap.train.data.scenes.dataset import read_image
from rlawrap.train.data.scenes.records import SceneIndex, Thing
from rlawrap.train.data.scenes.transforms import clip_boxes

#: The annotations of tiles, beside their images.
ANNOTATIONS = "annotations.json"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A piece of scene `scene`: its upper left corner, its sides, and the things in it."""

    scene: int
    left: int
    top: int
    width: int
    height: int
    things: tuple[Thing, ...]


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Where tiles of a side begin; the last is moved back to end with the scene.

    >>> starts(1000, 400, 0), starts(300, 400, 0)
    ([0, 400, 600], [0])
    """
    if not 0 <= overlap < size:
        raise ConfigError(f"overlap={overlap}: tiles of {size} pixels overlap by 0 to {size - 1}.")
    if length <= size:
        return [0]
    inside = range(0, length - size, size - overlap)
    return [*inside, length - size]


def tiles_of(
    index: SceneIndex, size: int, *, overlap: int = 0, min_share: float = 0.5, min_side: float = 2.0
) -> list[Tile]:
    """The tiles of all scenes, row by row. A function of its arguments.

    Boxes are cut at the edges of a tile, and stay where at least `min_share` of their area and
    `min_side` pixels each way are inside; a tile keeps its place when nothing is in it. Masks are
    left out. Raises `ConfigError` for an overlap that is no smaller than a tile.
    """
    found = []
    for number, scene in enumerate(index.scenes):
        things = index.things[number]
        boxes = torch.tensor([thing.box for thing in things], dtype=torch.float64).reshape(-1, 4)
        for top in starts(scene.height, size, overlap):
            for left in starts(scene.width, size, overlap):
                width, height = min(size, scene.width - left), min(size, scene.height - top)
                window = (left, top, left + width, top + height)
                cut, stay = clip_boxes(boxes, window, min_share=min_share, min_side=min_side)
                found.append(
                    Tile(
                        scene=number,
                        left=left,
                        top=top,
                        width=width,
                        height=height,
                        things=tuple(
                            _cut(things[n], cut[n]) for n in stay.nonzero().flatten().tolist()
                        ),
                    )
                )
    return found


def _cut(thing: Thing, box: Tensor) -> Thing:
    left, top, right, bottom = box.tolist()
    area = (right - left) * (bottom - top)
    return Thing(box=(left, top, right, bottom), label=thing.label, area=area, crowd=thing.crowd)


def write_tiles(index: SceneIndex, folder: Path, tiles: list[Tile]) -> Path:
    """The tiles as PNG files with COCO's annotations beside them, whose path is returned.

    Raises `DataError` for a scene that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    last, image = -1, torch.empty(0)
    for number, tile in enumerate(tiles, 1):
        if tile.scene != last:
            last, image = tile.scene, read_image(index.path(tile.scene), index.scenes[tile.scene])
        stem = Path(index.scenes[tile.scene].file).stem
        name = f"{stem}_{tile.top:05}_{tile.left:05}.png"
        piece = image[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        Image.fromarray(piece.permute(1, 2, 0).contiguous().numpy()).save(folder / name)
        images.append({"id": number, "file_name": name, "width": tile.width, "height": tile.height})
        for thing in tile.things:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **_as_coco(thing)})
    names = enumerate(index.classes, 1)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in names],
    }
    path = folder / ANNOTATIONS
    path.write_text(json.dumps(content))
    return path


def _as_coco(thing: Thing) -> dict[str, Any]:
    left, top, right, bottom = thing.box
    return {
        "bbox": [left, top, right - left, bottom - top],
        "category_id": thing.label,
        "area": thing.area,
        "iscrowd": int(thing.crowd),
    }
