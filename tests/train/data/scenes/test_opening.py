from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlawrap.errors import ConfigError, DataError
from rlawrap.train.data.scenes.layout import find_layout
from rlawrap.train.data.scenes.opening import open_scenes
from tests.train.data.scenes.making import coco, voc_xml, write_coco, write_image, write_voc


def test_cocos_own_layout(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for name in ("train2017", "val2017"):
        for file in ("a.png", "b.png"):
            write_image(tmp_path / name / file)
        content = coco()
        if name == "val2017":
            content["annotations"] = content["annotations"][:1]
            content["categories"] = content["categories"][:1]
        for kind in ("instances", "captions"):
            text = json.dumps(content) if kind == "instances" else "{}"
            (tmp_path / "annotations" / f"{kind}_{name}.json").write_text(text)
    train, test = (open_scenes(tmp_path, split=split) for split in ("train", "test"))
    assert train.classes == test.classes == ("car", "cow", "tree")
    assert len(train) == 1 and len(test) == 2
    assert test[0][1]["labels"].tolist() == [3]


@pytest.mark.parametrize("name", ["annotations.json", "_annotations.coco.json"])
def test_a_file_beside_the_images_of_each_split(tmp_path: Path, name: str) -> None:
    for split in ("train", "valid", "test"):
        write_coco(tmp_path / split, coco()).rename(tmp_path / split / name)
    data = open_scenes(tmp_path, split="test")
    assert data.index.source == str(tmp_path / "valid" / name) and len(data) == 2
    assert len(open_scenes(tmp_path, keep_empty=True, subset=1)) == 1
    with pytest.raises(ConfigError, match="subset=0"):
        open_scenes(tmp_path, keep_empty=True, subset=0)


def test_voc_with_lists_or_a_tenth_held_out(tmp_path: Path) -> None:
    write_voc(tmp_path, {f"{n:02}": [("cat", (1, 1, 4, 4))] for n in range(20)})
    parts = [open_scenes(tmp_path, split=split) for split in ("train", "test")]
    names = [{scene.file for scene in part.index.scenes} for part in parts]
    assert len(names[0]) == 18 and len(names[1]) == 2 and not names[0] & names[1]
    assert len(open_scenes(tmp_path, split="test", whole=True)) == 20
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("00\n01\n02\n")
    assert len(open_scenes(tmp_path)) == 3
    with pytest.raises(DataError, match=r"VOC with a train split, but none for test"):
        open_scenes(tmp_path, split="test")


def test_pairs_of_image_and_xml(tmp_path: Path) -> None:
    for split, name in (("train", "cat"), ("val", "dog")):
        write_image(tmp_path / split / "a.png")
        (tmp_path / split / "a.xml").write_text(voc_xml("a.png", [(name, (1, 1, 4, 4))]))
    assert open_scenes(tmp_path / "train", whole=True).classes == ("cat",)
    assert open_scenes(tmp_path).classes == ("cat",)
    with pytest.raises(DataError, match="the training split does not have: dog"):
        open_scenes(tmp_path, split="test")


@pytest.mark.parametrize("outside", [True, False])
def test_images_and_masks(tmp_path: Path, outside: bool) -> None:
    """train/images and train/masks, or images/train and masks/train."""
    for split, most in (("train", 2), ("val", 1)):
        for kind in ("images", "masks"):
            folder = tmp_path / split / kind if outside else tmp_path / kind / split
            folder.mkdir(parents=True)
            value = np.full((10, 20), most, np.uint8)
            Image.fromarray(value).save(folder / "a.png")
    for split in ("train", "test"):
        data = open_scenes(tmp_path, split=split, wanted="segmentation")
        assert data.classes == ("0", "1", "2") and len(data) == 1
    with pytest.raises(DataError, match="has a mask of classes but no boxes"):
        open_scenes(tmp_path)


def test_what_was_looked_for_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder. Give a folder of scenes: COCO"):
        find_layout(tmp_path / "none")
    (tmp_path / "cats").mkdir()
    with pytest.raises(DataError, match=r"It has cats/. Looked for COCO: .*VOC: .*masks of"):
        find_layout(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text("{}")
    with pytest.raises(DataError, match=r"looked for in train2017/, images/train2017/ and"):
        find_layout(tmp_path)
    with pytest.raises(ConfigError, match="split='val'"):
        open_scenes(tmp_path, split="val")


def test_splits_of_different_kinds(tmp_path: Path) -> None:
    write_coco(tmp_path / "train", coco())
    write_voc(tmp_path / "val", {"a": [("cat", (1, 1, 4, 4))]})
    with pytest.raises(DataError, match="splits are of different kinds: coco, voc"):
        open_scenes(tmp_path)
