from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from rlawrap.errors import ConfigError
from rlawrap.train.data.scenes.coco import read_coco
from rlawrap.train.data.scenes.dataset import SceneDataset
from rlawrap.train.data.scenes.records import Scene, SceneIndex, Thing
from rlawrap.train.data.scenes.tiles import starts, tiles_of, write_tiles


def whole(root: Path) -> SceneIndex:
    """A scene of 50 x 30 whose pixels tell where they are, with three things."""
    rows, columns = torch.meshgrid(torch.arange(30), torch.arange(50), indexing="ij")
    image = torch.stack([columns, rows, torch.zeros_like(rows)]).to(torch.uint8)
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(root / "a.png")
    boxes = [(2, 2, 8, 8), (17, 4, 25, 10), (19, 15, 40, 16)]
    things = tuple(
        Thing(box=box, label=1, area=(box[2] - box[0]) * (box[3] - box[1])) for box in boxes
    )
    return SceneIndex(
        root=root,
        source="a",
        scenes=(Scene(file="a.png", id=1, width=50, height=30),),
        things=(things,),
        classes=("tree",),
        category_ids=(1,),
    )


def test_tiles_cover_a_side() -> None:
    for length in range(1, 90):
        for size, overlap in ((20, 0), (20, 5), (7, 6)):
            begins = starts(length, size, overlap)
            assert begins == sorted(set(begins)) and begins[0] == 0
            covered = {x for begin in begins for x in range(begin, begin + size)}
            assert covered >= set(range(length))
            assert max(begins) + size <= max(length, size)
    with pytest.raises(ConfigError, match="overlap=20: tiles of 20 pixels"):
        starts(50, 20, 20)


def test_boxes_stay_where_enough_of_them_is(tmp_path: Path) -> None:
    tiles = tiles_of(whole(tmp_path), 20, min_share=0.5)
    assert [(tile.left, tile.top) for tile in tiles] == [
        (0, 0), (20, 0), (30, 0), (0, 10), (20, 10), (30, 10)
    ]  # fmt: skip
    # Of the second box 3 of 8 columns are in the first tile, 5 in the second.
    assert [[thing.box for thing in tile.things] for tile in tiles[:3]] == [
        [(2, 2, 8, 8)], [(0, 4, 5, 10)], []
    ]  # fmt: skip
    # The last is a pixel high, less than min_side.
    assert all(not tile.things for tile in tiles[3:])
    low = tiles_of(whole(tmp_path), 20, min_share=0.5, min_side=1)
    assert low[4].things[0].box == (0, 5, 20, 6) and low[4].things[0].area == 20


def test_written_tiles_are_read_back(tmp_path: Path) -> None:
    index = whole(tmp_path)
    tiles = tiles_of(index, 20, overlap=4)
    path = write_tiles(index, tmp_path / "tiles", tiles)
    assert json.loads(path.read_text())["categories"] == [{"id": 1, "name": "tree"}]
    read = read_coco(path.parent, path)
    assert read.classes == ("tree",) and [len(t) for t in read.things] == [
        len(tile.things) for tile in tiles
    ]
    data = SceneDataset(read, split="test")
    for number, tile in enumerate(tiles):
        image, target = data[number]
        assert (image[0, 0, 0] * 255).round() == tile.left
        assert (image[1, 0, 0] * 255).round() == tile.top
        assert target["boxes"].tolist() == [list(thing.box) for thing in tile.things]
