from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import FashionMNIST

from rlawrap.errors import DataError
from rlawrap.train.data import fashion, open_data
from rlawrap.train.data.arrays import write_idx

SCRIPT = Path(__file__).parents[3] / "scripts" / "make_fashion_sample.py"


def test_sample_is_class_balanced() -> None:
    for split, each in (("train", 600), ("test", 100)):
        data = open_data("builtin", split=split, image_size=32)
        assert data.class_counts() == dict.fromkeys(fashion.CLASSES, each)
        assert data.in_channels == 1


def test_sample_is_small_and_carries_its_licence() -> None:
    files = list(fashion.SAMPLE.iterdir())
    assert sum(file.stat().st_size for file in files) < 4 * 2**20
    assert "Zalando SE" in (fashion.SAMPLE / "LICENSE").read_text()


def test_train_and_test_images_are_different_ones() -> None:
    train, test = (fashion.open_sample(split).images.numpy() for split in ("train", "test"))
    seen = {image.tobytes() for image in train}
    assert len(seen) > 5990
    assert not any(image.tobytes() in seen for image in test)


def test_class_names_are_torchvisions() -> None:
    assert list(fashion.CLASSES) == FashionMNIST.classes


def whole_set(folder: Path, per_class: int) -> None:
    """A made-up Fashion-MNIST with `per_class` images of each class and split."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        labels = rng.permutation(np.arange(10 * per_class) % 10).astype(np.uint8)
        images = rng.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)


def test_the_script_draws_the_same_bytes_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_set(tmp_path / "whole", 610)
    for out in ("one", "two"):
        monkeypatch.setattr(
            sys, "argv", [str(SCRIPT), str(tmp_path / "whole"), "--out", str(tmp_path / out)]
        )
        runpy.run_path(str(SCRIPT), run_name="__main__")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in fashion.SAMPLE.iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    made = fashion.read_folder(tmp_path / "one", "train", "made")
    assert np.bincount(made.labels).tolist() == [600] * 10


@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_found_in_a_given_folder(tmp_path: Path, below: str) -> None:
    whole_set(tmp_path / "root" / below, 2)
    data = open_data("fashion-mnist", root=tmp_path / "root", split="test", image_size=32)
    assert len(data) == 20
    assert data.description.startswith("fashion-mnist in")


def test_a_folder_of_the_files_is_data_by_itself(tmp_path: Path) -> None:
    whole_set(tmp_path / "root", 2)
    assert len(open_data(tmp_path / "root", image_size=32)) == 20


def test_found_in_debians_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_set(tmp_path / "debian", 3)
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "debian")
    assert len(open_data("fashion-mnist", image_size=32)) == 30


def test_downloaded_when_found_nowhere(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_set(tmp_path / "server", 1)

    def download(self: FashionMNIST) -> None:
        shutil.copytree(tmp_path / "server", self.raw_folder)

    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.setattr(FashionMNIST, "download", download)
    monkeypatch.setattr(FashionMNIST, "_check_exists", lambda self: True)
    monkeypatch.setattr(FashionMNIST, "_load_data", lambda self: (None, None))
    assert len(open_data("fashion-mnist", image_size=32)) == 10
    assert (cache / "FashionMNIST" / "raw").is_dir()


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: FashionMNIST) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(fashion, "DEBIAN", Path("nowhere"))
    monkeypatch.setattr(FashionMNIST, "download", download)
    with pytest.raises(DataError, match="dataset-fashion-mnist"):
        open_data("fashion-mnist", image_size=32)


def test_a_root_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_data("fashion-mnist", root=tmp_path / "no", image_size=32)


def test_labels_missing_beside_the_images(tmp_path: Path) -> None:
    whole_set(tmp_path / "root", 1)
    (tmp_path / "root" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="labels-idx1"):
        open_data(tmp_path / "root", image_size=32)
