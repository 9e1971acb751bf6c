from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from rlawrap.errors import DataError
from rlawrap.train.data import open_data


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files in CIFAR-10's form, small, with the checksums that torchvision is to expect."""
    folder = tmp_path / "data" / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, object]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    pixels = np.zeros((4, 3, 32, 32), np.uint8)
    pixels[:, 0] = 255  # red
    batch = {"data": pixels.reshape(4, -1), "labels": [0, 1, 2, 1]}
    monkeypatch.setattr(CIFAR10, "train_list", [write("data_batch_1", batch)])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", batch)])
    name, checksum = write("batches.meta", {"label_names": ["plane", "car", "bird"]})
    meta = {"filename": name, "key": "label_names", "md5": checksum}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return tmp_path / "data"


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar_is_read_from_a_folder(cifar: Path, split: str) -> None:
    data = open_data("cifar10", root=cifar, split=split, image_size=32)  # type: ignore[arg-type]
    assert data.classes == ("plane", "car", "bird")
    assert data.labels.tolist() == [0, 1, 2, 1]
    assert data.source.read(0)[:, 5, 5].tolist() == [255, 0, 0]


def test_a_folder_without_room_for_a_lock_is_read_all_the_same(cifar: Path) -> None:
    (cifar / ".download.lock").mkdir()
    assert len(open_data("cifar10", root=cifar)) == 4


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: CIFAR10) -> None:
        raise OSError("no network")

    monkeypatch.setattr(CIFAR10, "download", download)
    with pytest.raises(DataError, match=r"no network.*pass that as root"):
        open_data("cifar10", image_size=32)
    with pytest.raises(DataError, match="does not exist"):
        open_data("cifar10", root=tmp_path / "no", image_size=32)
