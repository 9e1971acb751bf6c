from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlawrap.errors import ConfigError, DataError
from rlawrap.train.data import AugmentConfig, open_data
from tests.train.data.trees import MakeTree


def test_default_is_the_builtin_sample() -> None:
    data = open_data(image_size=32)
    assert len(data) == 6000 and data.description.startswith("builtin")


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (32, 3), (96, 3)])
def test_any_size_and_channels(size: int, channels: int) -> None:
    for split in ("train", "test"):
        data = open_data(split=split, image_size=size, in_channels=channels)  # type: ignore[arg-type]
        assert data[5][0].shape == (channels, size, size)


def test_subset_of_a_held_out_split(make_tree: MakeTree) -> None:
    root = make_tree(cat=30, dog=30)
    test = open_data(root, split="test", image_size=16)
    part = open_data(root, split="test", image_size=16, subset=2)
    assert part.class_counts() == {"cat": 1, "dog": 1}
    assert {part.name(i) for i in range(2)} < {test.name(i) for i in range(6)}


def test_default_sizes(make_tree: MakeTree) -> None:
    assert open_data("builtin").image_size == 32
    assert open_data(make_tree("train", cat=2))[0][0].shape == (3, 224, 224)


def test_root_is_joined_to_a_folder(make_tree: MakeTree) -> None:
    root = make_tree("train", cat=2)
    assert len(open_data(root.name, root=root.parent, image_size=16)) == 2


def test_the_augmentation_given_is_used() -> None:
    plain = AugmentConfig(crop="none", flip=0.0)
    data = open_data(image_size=32, augment=plain)
    assert torch.equal(data.load(0, seed=0, epoch=0)[0], data.load(0, seed=1, epoch=1)[0])


def test_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split"):
        open_data(split="val", image_size=32)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="subset"):
        open_data(image_size=32, subset=0)
    with pytest.raises(DataError, match="fashion-mnist"):
        open_data("fashion_mnist", image_size=32)
