from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from rlawrap.train.data import folder as folder_module
from rlawrap.train.data import open_data
from rlawrap.train.data.index import SampleIndex, holdout
from tests.train.data.trees import MakeTree, age, write_image


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were walked."""
    walked: list[Path] = []
    build = folder_module.build_folder_index

    def counting(folder: Path, classes: list[str] | None = None) -> SampleIndex:
        walked.append(folder)
        return build(folder, classes)

    monkeypatch.setattr(folder_module, "build_folder_index", counting)
    return walked


def names(root: Path) -> list[str]:
    data = open_data(root, image_size=16)
    return [os.path.basename(data.name(i)) for i in range(len(data))]


def stored(cache: Path) -> list[Path]:
    return sorted((cache / "index").iterdir())


def test_a_tree_is_walked_once(make_tree: MakeTree, builds: list[Path], cache: Path) -> None:
    root = make_tree("train", cat=3, dog=2)
    first, again = (open_data(root, image_size=16) for _ in range(2))
    assert builds == [root / "train"]
    assert [path.suffix for path in stored(cache)] == [".npz"]
    assert [again.name(i) for i in range(5)] == [first.name(i) for i in range(5)]
    assert again.labels.tolist() == first.labels.tolist() == [0, 0, 0, 1, 1]
    assert again.classes == first.classes
    assert again.fingerprint() == first.fingerprint()


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "new class", "deep"])
def test_a_change_of_the_tree_is_seen(make_tree: MakeTree, builds: list[Path], change: str) -> None:
    root = make_tree("train", cat=3)
    write_image(root / "train" / "cat" / "sub" / "7.png", 1)
    age(root)
    before = open_data(root, image_size=16).fingerprint()
    cat = root / "train" / "cat"
    if change == "added":
        write_image(cat / "9.png", 1)
    elif change == "removed":
        (cat / "1.png").unlink()
    elif change == "renamed":
        (cat / "1.png").rename(cat / "8.png")
    elif change == "new class":
        write_image(root / "train" / "dog" / "0.png", 1)
    else:
        write_image(cat / "sub" / "9.png", 1)
    assert open_data(root, image_size=16).fingerprint() != before
    assert len(builds) == 2


def test_a_tree_changed_just_now_is_not_cached(
    make_tree: MakeTree, builds: list[Path], cache: Path
) -> None:
    root = make_tree("train", cat=2)
    write_image(root / "train" / "cat" / "new.png", 1)
    names(root)
    names(root)
    assert len(builds) == 2
    assert not (cache / "index").exists()


def test_moving_the_tree_keeps_the_fingerprint(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree("train", cat=2)
    before = open_data(root, image_size=16).fingerprint()
    moved = root.rename(tmp_path / "elsewhere")
    age(moved, 100)
    assert open_data(moved, image_size=16).fingerprint() == before


def test_a_file_of_another_size_changes_the_fingerprint(make_tree: MakeTree) -> None:
    root = make_tree("train", cat=2)
    before = open_data(root, image_size=16).fingerprint()
    write_image(root / "train" / "cat" / "0.png", 10, (64, 64))
    (root / "train" / "cat").touch()
    assert open_data(root, image_size=16).fingerprint() != before


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"torn"])
def test_a_damaged_cache_is_built_again(
    make_tree: MakeTree,
    builds: list[Path],
    cache: Path,
    damage: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = make_tree("train", cat=3)
    expected = names(root)
    (file,) = stored(cache)
    file.write_bytes(file.read_bytes()[:-100] if damage == b"torn" else damage)
    with caplog.at_level(logging.WARNING):
        assert names(root) == expected
    assert "is damaged" in caplog.text
    assert len(builds) == 2
    assert names(root) == expected and len(builds) == 2


def test_a_cache_that_cannot_be_written_is_no_error(
    make_tree: MakeTree, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_tree("train", cat=2)
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert names(root) == ["0.png", "1.png"]
    assert "could not be kept" in caplog.text


def test_a_failed_write_leaves_nothing_behind(
    make_tree: MakeTree, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert names(make_tree("train", cat=2)) == ["0.png", "1.png"]
    assert stored(cache) == []


def index(count: int) -> SampleIndex:
    return SampleIndex.of(
        classes=("a", "b"),
        names=[f"{'ab'[i % 2]}/{i}" for i in range(count)],
        labels=[i % 2 for i in range(count)],
        sizes=[1] * count,
        watched=[],
    )


def test_names_of_any_length() -> None:
    names = ["", "x", "y/éà", "z" * 300]
    made = SampleIndex.of(classes=("a",), names=names, labels=[0] * 4, sizes=[0] * 4, watched=[])
    assert [made.name(i) for i in range(4)] == names


def test_holdout_moves_no_other_image_when_one_is_added() -> None:
    before, after = (set(holdout(index(n), "test").tolist()) for n in (400, 402))
    assert len(before) == 40
    assert len(before ^ after) <= 2


def test_holdout_splits_are_complementary() -> None:
    train, test = (holdout(index(50), split) for split in ("train", "test"))
    assert sorted(np.concatenate([train, test]).tolist()) == list(range(50))
