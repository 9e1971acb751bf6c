"""Small image trees, and a cache folder of each test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.data.trees import MakeTree, age, write_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("RLAWRAP_CACHE", str(folder))
    return folder


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """`make_tree("train", cat=3, dog=2)`: tree/train/cat/0.png ... with values 10, 11, ..."""

    def make(split: str = "", **counts: int) -> Path:
        root = tmp_path / "tree"
        value = 10
        for name, count in counts.items():
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                write_image(root / split / name / f"{number}.png", value)
                value += 1
        age(root)
        return root

    return make
