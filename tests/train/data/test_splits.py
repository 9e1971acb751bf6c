from __future__ import annotations

from pathlib import Path

import pytest

from rlawrap.errors import DataError
from rlawrap.train.data import open_data
from rlawrap.train.data.splits import read_layout, speak_of_splits
from tests.train.data.trees import MakeTree, write_image


def folders(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).mkdir(parents=True, exist_ok=True)
    return root


def chosen(root: Path) -> tuple[str | None, str | None]:
    layout = read_layout(root)
    train, test = layout.train, layout.test
    return train.name if train else None, test.name if test else None


@pytest.mark.parametrize("train", ["Training", "TRAIN", "train"])
@pytest.mark.parametrize(
    "test", ["Testing", "Val", "VALIDATION", "valid", "dev", "Eval", "TEST", "evaluation"]
)
def test_splits_by_their_usual_names_in_any_case(
    make_tree: MakeTree, train: str, test: str
) -> None:
    make_tree(train, cat=2, dog=2)
    root = make_tree(test, cat=1)
    assert chosen(root) == (train, test)
    for split, name, count in (("train", train, 4), ("test", test, 1)):
        data = open_data(root, split=split, image_size=8)  # type: ignore[arg-type]
        assert data.classes == ("cat", "dog") and len(data) == count
        assert all(f"/{name}/" in data.name(number) for number in range(count))


def test_val_goes_before_test_and_what_is_not_used_is_said(make_tree: MakeTree) -> None:
    make_tree("train", cat=1, dog=1)
    make_tree("Test", cat=1)
    root = make_tree("Valid", dog=1)
    folders(root, "notes")
    data = open_data(root, split="test", image_size=8)
    assert data.name(0) == f"{root}/Valid/dog/0.png"
    assert data.remarks == (f"{root}: not used beside the splits: Test/, notes/",)


@pytest.mark.parametrize(
    "names",
    [
        ("train2017", "val2017"),
        ("train_images", "test_images", "annotations"),
        ("TrainSet", "TestSet"),
        ("seg_train", "seg_test", "seg_pred"),
        ("asl-alphabet-training", "asl-alphabet-testing"),
        ("trainval", "test"),
        ("train", "test_set"),
        ("traindata", "holdout"),
        ("train_set", "extra"),
        ("fold1", "fold2", "fold3"),
        ("Split A", "Split B"),
    ],
)
def test_what_looks_like_splits_is_never_taken_for_classes(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        for label in ("cat", "dog"):
            write_image(tmp_path / name / label / "1.png", 9)
    with pytest.raises(DataError, match=r"look like splits of the data.*train/ or training/") as no:
        open_data(tmp_path, image_size=8)
    assert f"{names[0]}/" in str(no.value) and "testing/" in str(no.value)


@pytest.mark.parametrize(
    "names", [("train", "Training"), ("train", "val", "valid"), ("Dev", "dev")]
)
def test_two_folders_of_one_split_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    folders(tmp_path, *(f"{name}/cat" for name in names))
    with pytest.raises(DataError, match=r"are all names of the (train|test) split. Keep one"):
        read_layout(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "dog"),
        ("bullet_train", "freight_train", "test_tube"),
        ("train", "car", "plane"),  # a railway, as in VOC
        ("trainers", "boots", "valley", "developer"),
        ("train_station", "train_interior", "bus_station"),
        ("part1", "part2"),
    ],
)
def test_class_folders_whose_names_only_sound_so(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        for image in range(2):
            write_image(tmp_path / name / f"{image}.png", number)
    assert chosen(tmp_path) == (None, None)
    assert open_data(tmp_path, image_size=8).classes == tuple(sorted(names))


def test_flat_splits_are_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_image(tmp_path / name / "1.png", 9)
    with pytest.raises(DataError, match="train: no class folders in it, but 1 images"):
        open_data(tmp_path, image_size=8)
    for name in ("train2017", "val2017"):
        write_image(tmp_path / "coco" / name / "1.png", 9)
    with pytest.raises(DataError, match="look like splits"):
        open_data(tmp_path / "coco", image_size=8)


def test_only_names_that_differ_in_the_split_belong_together() -> None:
    assert speak_of_splits(["a_train", "b_test"]) == []
    assert speak_of_splits(["a_train", "a_val", "c"]) == ["a_train", "a_val"]


def test_splits_below_the_classes_are_refused(make_tree: MakeTree) -> None:
    for name in ("cat", "dog"):
        for split in ("train", "Test"):
            root = make_tree(f"{name}/{split}", good=1)
    with pytest.raises(DataError, match=r"2 of its 2 folders hold splits, such as cat/ with Test/"):
        open_data(root, image_size=8)


def test_classes_that_may_lie_one_level_down_are_said(make_tree: MakeTree) -> None:
    make_tree("lab1", cat=2, dog=2)
    root = make_tree("lab2", cat=2, dog=2)
    (remark,) = open_data(root, image_size=8).remarks
    assert "the classes are lab1/, lab2/, and each of them holds the folders cat/, dog/" in remark
