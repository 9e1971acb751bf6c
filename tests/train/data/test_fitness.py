from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from rlawrap.errors import ConfigError, DataError
from rlawrap.train import TrainConfig, train
from rlawrap.train.data import open_data
from rlawrap.train.data.fitness import check_fitness, check_output_apart
from rlawrap.train.data.given import GivenImages
from tests.train.data.test_shards import png, write_tar
from tests.train.data.trees import MakeTree


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        train(TrainConfig(data=str(root), output=str(root.parent / "run"), progress="none"))
    assert not (root.parent / "run").exists()
    return str(caught.value)


def test_one_class_is_shown_before_the_first_step(make_tree: MakeTree) -> None:
    root = make_tree(cat=5)
    assert re.search(r"one class, cat, with 4 images. A classifier needs two", refused(root))


def test_a_folder_one_level_too_high_leads_to_the_right_one(make_tree: MakeTree) -> None:
    root = make_tree("photos", cat=3, dog=3)
    message = refused(root)
    assert "one class, photos, with 5 images" in message
    assert "In photos/ are 2 folders (cat/, dog/)" in message
    assert message.endswith(f"give {root}/photos.")


def test_a_folder_above_one_with_splits(make_tree: MakeTree) -> None:
    make_tree("photos/train", cat=3, dog=3)
    root = make_tree("photos/val", cat=3, dog=3)
    assert "such as photos/ with train/, val/" in refused(root)


def test_splits_with_one_folder_between_them_and_the_classes(make_tree: MakeTree) -> None:
    make_tree("train/photos", cat=3, dog=3)
    root = make_tree("val/photos", cat=3, dog=3)
    assert refused(root).endswith(f"give {root}/train/photos.")


def test_labels_of_one_class_among_several(tmp_path: Path) -> None:
    files = {f"{n}.png": png(n) for n in range(3)} | {f"{n}.cls": b"2" for n in range(3)}
    write_tar(tmp_path / "train-0.tar", files)
    with pytest.raises(DataError, match=r"3 images, all of one class \(2\) of 3 \(0, 1, 2\)"):
        check_fitness(open_data(tmp_path, image_size=8), 8)


def test_given_images_of_one_class_are_told_nothing_of_folders() -> None:
    class Alike(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(1, 4, 4), 0

    with pytest.raises(DataError, match=r"one class, cat, with 4 images.*two classes or more\.$"):
        check_fitness(GivenImages(Alike(), ["cat"], "training"), batch_size=2)


def test_an_output_that_would_be_a_class_is_refused_before_it_is_made(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(cat=3, dog=3)
    monkeypatch.chdir(root)
    for output, better in (("runs/train", "train"), ("cat/mine", "mine"), (".", "train")):
        with pytest.raises(ConfigError, match=r"inside the data.* taken for classes") as caught:
            train(TrainConfig(data=".", output=output, progress="none"))
        assert str(caught.value).endswith(f"--output {root.parent}/runs/{better}")
    assert sorted(path.name for path in root.iterdir()) == ["cat", "dog"]
    check_output_apart(".", None, "../runs/train")
    check_output_apart(".", None, ".runs/train")
    check_output_apart("builtin", None, "runs/train")
    (root / "cat" / "old").mkdir()
    (root / "cat" / "old" / "metrics.jsonl").touch()
    check_output_apart(".", None, "cat/old")


def test_an_output_beside_splits_or_shards_is_taken(make_tree: MakeTree, tmp_path: Path) -> None:
    make_tree("train", cat=3, dog=3)
    root = make_tree("val", cat=1, dog=1)
    check_output_apart(str(root), None, str(root / "runs"))
    with pytest.raises(ConfigError, match="inside the data"):
        check_output_apart(str(root), None, str(root / "train" / "runs"))
    write_tar(tmp_path / "shards" / "a.tar", {"0.png": png(1), "0.cls": b"0"})
    check_output_apart("shards", str(tmp_path), str(tmp_path / "shards" / "runs"))
