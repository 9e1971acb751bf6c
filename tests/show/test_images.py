from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import rlawrap
from rlawrap.show.images import Preparation, open_photo, preparation_of
from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.data.transforms import eval_transform

HOW = Preparation(size=(32, 32), mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7))


def photograph(path: Path, *, size: tuple[int, int] = (90, 60), mode: str = "RGB") -> Path:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("size", "resize", "photo"),
    [(96, None, (200, 120)), (96, 110, (130, 140)), (32, None, (28, 28)), (32, None, (90, 60)),
     (32, 40, (50, 70))],
)  # fmt: skip
def test_a_photograph_is_made_ready_as_the_trainers_test_images_are(
    size: int, resize: int | None, photo: tuple[int, int], tmp_path: Path
) -> None:
    path = photograph(tmp_path / "a.png", size=photo)
    how = Preparation(size=(size, size), mean=HOW.mean, std=HOW.std, resize=resize)
    transform = eval_transform(AugmentConfig(resize=resize), size, mean=HOW.mean, std=HOW.std)
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    opened = open_photo(path, how)
    assert torch.equal(opened.tensor[0], transform(pixels))
    assert opened.pixels.shape == (size, size, 3)


def test_a_networks_own_configuration_decides_and_arguments_before_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert preparation_of(model).size == (224, 224)
    model.default_cfg = {"input_size": (3, 64, 48), "mean": (0.5,) * 3, "std": (0.2,) * 3,
                         "crop_pct": 0.75}  # fmt: skip
    how = preparation_of(model)
    assert (how.size, how.mean, how.std, how.resize) == ((64, 48), (0.5,) * 3, (0.2,) * 3, 64)
    how = preparation_of(model, size=40, mean=[0.1])
    assert (how.size, how.mean, how.resize) == ((40, 40), (0.1,) * 3, None)
    grey = preparation_of(nn.Conv2d(1, 4, 3))
    assert grey.mean == (pytest.approx((0.485 + 0.456 + 0.406) / 3),)
    with pytest.raises(rlawrap.ConfigError, match="has 2 values; the network reads 3"):
        preparation_of(model, std=[1.0, 2.0])


def test_what_an_image_may_be(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.png", mode="L")
    one, two = open_photo(path, HOW), open_photo(Image.open(path), HOW)
    assert torch.equal(one.tensor, two.tensor)
    assert (one.name, two.name) == (str(path), "the image")
    ready = open_photo(one.tensor, HOW)
    assert torch.equal(ready.tensor, one.tensor)
    assert np.abs(ready.pixels.astype(int) - one.pixels.astype(int)).max() <= 1
    upright = Image.open(path)
    exif = upright.getexif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.jpg"
    upright.save(turned, exif=exif, quality=100)
    sideways = open_photo(turned, Preparation(size=(90, 60), mean=HOW.mean, std=HOW.std, resize=60))
    assert sideways.pixels.shape == (90, 60, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.png", "no such image file"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: _cut(folder), "no image that can be read"),
        (lambda folder: _deep(folder), "more than 8 bits a pixel"),
        (lambda folder: torch.zeros(1, 8, 8), r"shape \(1, 8, 8\); expected \[3, height, width\]"),
        (lambda folder: 3, "no image that can be read"),
    ],
)
def test_what_is_no_image_is_told(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(rlawrap.DataError, match=message):
        open_photo(make(tmp_path), HOW)


def _cut(folder: Path) -> Path:
    path = photograph(folder / "cut.png")
    path.write_bytes(path.read_bytes()[:500])
    return path


def _deep(folder: Path) -> Path:
    path = folder / "deep.png"
    Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(path)
    return path
