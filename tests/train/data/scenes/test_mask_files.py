from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlawrap.errors import DataError
from rlawrap.train.data.scenes.mask_files import read_classes, read_masks, read_numbers
from tests.train.data.scenes.making import write_image

NUMBERS = np.array([[0, 1, 2], [255, 2, 15]], np.uint8)
# The first colours of VOC's palette, as its development kit lists them, and white-ish for 255.
COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 255: (224, 224, 192)}


def test_grey_palette_and_coloured_files_say_the_same(tmp_path: Path) -> None:
    grey = Image.fromarray(NUMBERS)
    grey.save(tmp_path / "grey.png")
    paletted = grey.copy()
    paletted.putpalette([channel for n in range(256) for channel in COLOURS.get(n, (1, 2, 3))])
    paletted.save(tmp_path / "palette.png")
    coloured = np.array([[COLOURS[n] for n in row] for row in NUMBERS.tolist()], np.uint8)
    Image.fromarray(coloured).save(tmp_path / "colour.png")
    for name in ("grey", "palette", "colour"):
        assert (read_numbers(tmp_path / f"{name}.png") == NUMBERS).all()
    coloured[0, 0] = (9, 9, 9)
    Image.fromarray(coloured).save(tmp_path / "other.png")
    with pytest.raises(DataError, match=r"other.png: a mask in colours .*#090909"):
        read_numbers(tmp_path / "other.png")


def test_numbers_that_are_no_class(tmp_path: Path) -> None:
    Image.fromarray(NUMBERS).save(tmp_path / "a.png")
    assert read_classes(tmp_path / "a.png", 16).tolist() == NUMBERS.tolist()
    with pytest.raises(DataError, match=r"a.png: class number 15, but there are 15 classes"):
        read_classes(tmp_path / "a.png", 15)
    Image.fromarray(NUMBERS.astype(np.uint16) * 300).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"class number 10964"):
        read_numbers(tmp_path / "deep.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"broken.png: a broken mask"):
        read_numbers(tmp_path / "broken.png")


def test_pairs_by_name(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    masks.mkdir()
    for name in ("b.png", "a.png", "c.jpg"):
        write_image(images / name)
    for name in ("a.png", "c.png"):
        Image.fromarray(np.full((10, 20), 3, np.uint8)).save(masks / name)
    index = read_masks(images, masks)
    assert [scene.file for scene in index.scenes] == ["a.png", "c.jpg"]
    assert index.classes == ("0", "1", "2", "3")
    assert "1 images without a mask, left out (first: b.png)" in index.remarks[0]
    (tmp_path / "classes.txt").write_text("ground\nroad\nroof\ntree\n")
    assert read_masks(images, masks).classes == ("ground", "road", "roof", "tree")
    assert read_masks(images, masks, classes=["x", "y"]).classes == ("x", "y")
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(masks / "z.png")
    with pytest.raises(DataError, match=r"1 masks without an image of that name in .*: z.png"):
        read_masks(images, masks)


def test_no_pair_at_all(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match="no mask for any of the 1 images"):
        read_masks(tmp_path / "images", tmp_path / "masks")
