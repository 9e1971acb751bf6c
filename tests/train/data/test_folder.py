from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from rlawrap.errors import DataError
from rlawrap.train.data import open_data
from tests.train.data.trees import MakeTree, write_image


def values(root: Path, split: str) -> list[tuple[str, int]]:
    data = open_data(root, split=split, image_size=16)  # type: ignore[arg-type]
    return [(os.path.relpath(data.name(i), root), int(data.labels[i])) for i in range(len(data))]


def test_order_and_labels_are_those_of_torchvisions_image_folder(make_tree: MakeTree) -> None:
    root = make_tree("train", zebra=12, ant=3, Cat=2)
    make_tree("val", zebra=1, ant=1, Cat=1)
    reference = ImageFolder(str(root / "train"))
    data = open_data(root, image_size=16)
    assert [(data.name(i), int(data.labels[i])) for i in range(len(data))] == reference.samples
    assert list(data.classes) == reference.classes == ["Cat", "ant", "zebra"]
    assert data.in_channels == 3


def test_pixels_are_those_of_the_file(make_tree: MakeTree) -> None:
    data = open_data(make_tree("train", cat=2), image_size=16)
    assert data.source.read(1).unique().tolist() == [11]
    assert data.source.read(1).shape == (3, 10, 12)


@pytest.mark.parametrize("name", ["val", "test", "valid", "validation"])
def test_the_test_split_may_have_several_names(make_tree: MakeTree, name: str) -> None:
    make_tree("train", cat=2, dog=2)
    root = make_tree(name, dog=1)
    assert values(root, "test") == [(f"{name}/dog/0.png", 1)]


def test_val_has_the_class_numbers_of_train(make_tree: MakeTree) -> None:
    make_tree("train", ant=1, bee=1, cow=1)
    root = make_tree("val", cow=1)
    assert values(root, "test") == [("val/cow/0.png", 2)]
    assert open_data(root, split="test", image_size=16).classes == ("ant", "bee", "cow")


def test_a_class_that_train_does_not_have(make_tree: MakeTree) -> None:
    make_tree("train", ant=1)
    root = make_tree("val", ant=1, bee=1)
    with pytest.raises(DataError, match="training split does not have: bee"):
        open_data(root, split="test", image_size=16)


def test_without_splits_a_tenth_of_each_class_is_held_out(make_tree: MakeTree) -> None:
    root = make_tree(cat=40, dog=20, one=1)
    train, test = values(root, "train"), values(root, "test")
    assert sorted(train + test) == sorted({*train, *test}) and len(train) + len(test) == 61
    assert [label for _, label in test] == [0] * 4 + [1] * 2
    assert ("one/0.png", 2) in train
    assert test != values(root, "train")[:6]
    assert "held out" in open_data(root, image_size=16).description


def test_images_lie_at_any_depth_and_other_files_are_left_out(make_tree: MakeTree) -> None:
    root = make_tree("train", cat=1)
    write_image(root / "train" / "cat" / "deep" / "er" / "x.JPG", 3)
    write_image(root / "train" / "cat" / ".hidden.png", 3)
    write_image(root / "train" / ".hidden" / "y.png", 3)
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / "labels.csv").write_text("no class")
    assert values(root, "train") == [("train/cat/0.png", 0), ("train/cat/deep/er/x.JPG", 0)]


def test_names_that_are_no_utf8(make_tree: MakeTree) -> None:
    root = make_tree("train", cat=1)
    name = os.path.join(os.fsencode(root), b"train/cat/\xff\xfe.png")
    with open(name, "wb") as file:
        Image.new("RGB", (4, 4)).save(file, "PNG")
    data = open_data(root, image_size=16)
    assert len(data) == 2
    assert all(data[i][0].shape == (3, 16, 16) for i in range(2))


def test_missing_folder_file_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder.*builtin"):
        open_data(tmp_path / "no", image_size=16)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        open_data(tmp_path / "file", image_size=16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        open_data(tmp_path / "empty", image_size=16)


def test_class_folders_without_images_are_named(make_tree: MakeTree) -> None:
    root = make_tree("train", ant=1, bee=0, cow=0)
    with pytest.raises(DataError, match="2 class folders without images: bee, cow"):
        open_data(root, image_size=16)


def test_a_split_that_is_not_there(make_tree: MakeTree) -> None:
    root = make_tree("train", ant=1)
    with pytest.raises(DataError, match="has train/ but no folder for the test split"):
        open_data(root, split="test", image_size=16)


def test_links_to_nothing_and_in_a_circle(make_tree: MakeTree) -> None:
    root = make_tree("train", cat=1)
    (root / "train" / "cat" / "z.png").symlink_to(root / "nowhere.png")
    data = open_data(root, image_size=16)
    assert len(data) == 2
    with pytest.raises(DataError, match=r"z\.png: cannot be read"):
        data.load(1, seed=0, epoch=0)
    (root / "train" / "cat" / "loop").symlink_to(root / "train" / "cat")
    with pytest.raises(DataError, match="loop: a link to a folder that it is in"):
        open_data(root, image_size=16)


def test_a_folder_that_may_not_be_read(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree("train", cat=1)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cat: cannot be read \(Permission denied\)"):
        open_data(root, image_size=16)


def test_an_image_that_went_away_is_named(make_tree: MakeTree) -> None:
    data = open_data(make_tree("train", cat=2), image_size=16)
    Path(data.name(0)).unlink()
    with pytest.raises(DataError, match=r"cat/0\.png: cannot be read"):
        data.load(0, seed=0, epoch=0)


def test_all_of_a_folder_without_splits(make_tree: MakeTree) -> None:
    root = make_tree(cat=20, dog=10)
    data = open_data(root, split="test", image_size=8, whole=True)
    assert len(data) == 30 and "all of it" in data.description
    assert data.transform(data.source.read(0)).shape == (3, 8, 8)
    assert len(open_data(root, split="test", image_size=8)) == 3


def test_class_folders_whose_names_are_no_utf8(make_tree: MakeTree, cache: Path) -> None:
    make_tree("train", cat=2, **{"caf\udce9": 3})
    root = make_tree("val", **{"caf\udce9": 1})
    for _ in range(2):  # walked, and from the index that was kept
        data = open_data(root, image_size=8)
        assert data.classes == ("caf\\xe9", "cat") and data.class_counts()["caf\\xe9"] == 3
        assert data.load(0, seed=0, epoch=0)[1] == 0 and len(data.fingerprint()) == 32
        assert len(list((cache / "index").glob("*.npz"))) == 1
    test = open_data(root, split="test", image_size=8)
    assert test.classes == data.classes and test.labels.tolist() == [0]
    make_tree("train", **{"caf\\xe9": 1})
    with pytest.raises(DataError, match="two class folders are called"):
        open_data(root, image_size=8)


def test_a_root_whose_name_is_no_utf8(make_tree: MakeTree) -> None:
    root = make_tree("b\udcff/train", cat=2)
    assert len(open_data(root / "b\udcff", image_size=8)) == 2
