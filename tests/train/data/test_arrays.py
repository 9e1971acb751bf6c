from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from rlawrap.errors import DataError
from rlawrap.train.data.arrays import ArraySource, read_idx, write_idx


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_idx_round_trip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    write_idx(tmp_path / "a.gz", array)
    assert np.array_equal(read_idx(tmp_path / "a.gz"), array)
    (tmp_path / "plain").write_bytes(gzip.decompress((tmp_path / "a.gz").read_bytes()))
    assert np.array_equal(read_idx(tmp_path / "plain"), array)


def test_idx_header_is_big_endian_as_published(tmp_path: Path) -> None:
    write_idx(tmp_path / "a.gz", np.zeros((1, 28, 28), np.uint8))
    content = gzip.decompress((tmp_path / "a.gz").read_bytes())
    assert content[:16].hex() == "00000803000000010000001c0000001c"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "not an IDX file"),
        (b"\0\0\x08\x03\0\0", "within its header"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "holds 3 bytes"),
    ],
)
def test_what_is_no_idx_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "x")


def test_a_torn_gzip_file_and_a_missing_one(tmp_path: Path) -> None:
    write_idx(tmp_path / "a.gz", np.random.default_rng(0).integers(0, 255, 500, dtype=np.uint8))
    whole = (tmp_path / "a.gz").read_bytes()
    (tmp_path / "torn.gz").write_bytes(whole[:-200])
    (tmp_path / "other.gz").write_bytes(b"no gzip")
    for name in ("torn.gz", "other.gz", "missing"):
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            read_idx(tmp_path / name)


def source(labels: list[int], count: int = 3) -> ArraySource:
    return ArraySource(
        np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2),
        np.array(labels),
        classes=("a", "b"),
        mean=(0.5,),
        std=(0.5,),
        description="toy",
    )


def test_images_are_channels_first() -> None:
    assert source([0, 1, 0]).read(1).tolist() == [[[4, 5], [6, 7]]]


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, -1, 1]])
def test_labels_out_of_range(labels: list[int]) -> None:
    with pytest.raises(DataError, match=r"out of range \(0 to 1\)"):
        source(labels)


def test_as_many_labels_as_images() -> None:
    with pytest.raises(DataError, match="3 images but 2 labels"):
        source([0, 1])
