from __future__ import annotations

import copy
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlawrap.errors import DataError
from rlawrap.train.data import open_data
from rlawrap.train.data.shards import OPEN_SHARDS, ShardSource
from tests.train.data.trees import age


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def shard(path: Path, start: int, count: int, classes: int = 3) -> None:
    """Samples start..start+count with grey value = number and class = number % classes."""
    files = {}
    for number in range(start, start + count):
        files[f"d/{number:04}.png"] = png(number)
        files[f"d/{number:04}.cls"] = str(number % classes).encode()
        files[f"d/{number:04}.json"] = b"{}"
    write_tar(path, files)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for number in range(3):
        shard(tmp_path / "s" / f"train-{number}.tar", 10 * number, 10)
    shard(tmp_path / "s" / "val-0.tar", 100, 5)
    return tmp_path / "s"


def test_any_sample_is_read_without_the_ones_before_it(shards: Path) -> None:
    data = open_data(shards, image_size=16)
    assert len(data) == 30
    for index in (29, 0, 13, 7):
        assert data.source.read(index).unique().tolist() == [index]
        assert data.load(index, seed=0, epoch=0)[1] == index % 3
    assert data.name(13) == f"{shards}/train-1.tar:d/0013.png"
    assert data.classes == ("0", "1", "2")


def test_the_test_split(shards: Path) -> None:
    data = open_data(shards, split="test", image_size=16)
    assert [int(data.source.read(i)[0, 0, 0]) for i in range(5)] == [100, 101, 102, 103, 104]


def test_splits_may_be_folders(tmp_path: Path) -> None:
    shard(tmp_path / "train" / "a.tar", 0, 6)
    shard(tmp_path / "val" / "a.tar", 50, 3)
    assert len(open_data(tmp_path, image_size=16)) == 6
    assert open_data(tmp_path, split="test", image_size=16).name(0).endswith("d/0050.png")


def test_without_splits_a_tenth_is_held_out(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", 0, 60)
    train, test = (
        {data.name(i) for i in range(len(data))}
        for data in (open_data(tmp_path, split=s, image_size=16) for s in ("train", "test"))
    )
    assert (len(train), len(test)) == (54, 6) and not train & test


def test_class_names_come_from_a_file(shards: Path) -> None:
    (shards / "classes.txt").write_text("ant\nbee\ncow\n")
    assert open_data(shards, image_size=16).classes == ("ant", "bee", "cow")
    (shards / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"classes\.txt: not UTF-8 text"):
        open_data(shards)
    (shards / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(DataError, match=r"label 2 is out of range \(0 to 1\)"):
        open_data(shards, image_size=16)


def test_both_splits_have_the_classes_of_the_highest_label(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", 0, 4, classes=2)
    shard(tmp_path / "val-0.tar", 0, 6, classes=5)
    assert len(open_data(tmp_path, image_size=16).classes) == 5


def test_webdatasets_own_writer_and_reader_agree(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "train-%03d.tar"), maxcount=4, verbose=0) as sink:
        for number in range(10):
            sink.write({"__key__": f"k{number}", "png": png(number), "cls": number % 2})
    shard(tmp_path / "val-0.tar", 0, 2)
    data = open_data(tmp_path, image_size=16)
    read = [(int(data.source.read(i)[0, 0, 0]), int(data.labels[i])) for i in range(len(data))]
    assert read == [(number, number % 2) for number in range(10)]


def test_the_index_is_cached_and_follows_the_shards(shards: Path) -> None:
    age(shards)
    before = open_data(shards, image_size=16).fingerprint()
    assert open_data(shards, image_size=16).fingerprint() == before
    shard(shards / "train-1.tar", 10, 9)
    after = open_data(shards, image_size=16)
    assert len(after) == 29 and after.fingerprint() != before


def test_copies_and_many_shards(tmp_path: Path) -> None:
    for number in range(OPEN_SHARDS + 6):
        shard(tmp_path / f"train-{number:03}.tar", number, 1)
    shard(tmp_path / "val-0.tar", 0, 1)
    data = open_data(tmp_path, image_size=16)
    source = data.source
    assert isinstance(source, ShardSource)
    for copied in (source, pickle.loads(pickle.dumps(source)), copy.deepcopy(source)):
        for _ in range(2):
            read = [int(copied.read(i)[0, 0, 0]) for i in range(len(data))]
            assert read == list(range(OPEN_SHARDS + 6))
        assert len(copied._open) == OPEN_SHARDS
        copied.close()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": png(1)}, "1 images without a .cls"),
        ({"a.png": png(1), "a.cls": b"cat"}, "not a class number"),
        ({"a.png": png(1), "a.cls": b"-1"}, "not a class number"),
        ({"a.txt": b"x"}, "no images in 1 tar files"),
    ],
)
def test_what_is_wrong_in_a_shard(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    write_tar(tmp_path / "x.tar", files)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path, image_size=16)


def test_a_compressed_or_torn_tar_file(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a.png": png(1), "a.cls": b"0"}, "w:gz")
    with pytest.raises(DataError, match=r"x\.tar: not a whole, uncompressed tar"):
        open_data(tmp_path, image_size=16)
    shard(tmp_path / "x.tar", 0, 5)
    content = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(content[:2100])
    with pytest.raises(DataError, match=r"x\.tar: not a whole"):
        open_data(tmp_path, image_size=16)


def test_a_broken_image_in_a_shard_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a.png": png(1)[:40], "a.cls": b"0"})
    data = open_data(tmp_path, image_size=16)
    with pytest.raises(DataError, match=r"x\.tar:a\.png: a broken image"):
        data.load(0, seed=0, epoch=0)


def test_a_split_without_shards(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", 0, 3)
    with pytest.raises(DataError, match="no tar files for the test split"):
        open_data(tmp_path, split="test", image_size=16)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training-0.tar", "Testing-0.tar"),
        ("imagenet-train-000.tar", "imagenet-val-000.tar"),
        ("trainset_0.tar", "VALID_0.tar"),
        ("train/a.tar", "Dev/a.tar"),
        ("train-0.tar", "validation/a.tar"),
    ],
)
def test_splits_by_their_usual_names(tmp_path: Path, train: str, test: str) -> None:
    shard(tmp_path / train, 0, 6)
    shard(tmp_path / test, 50, 3)
    for split, name, count in (("train", train, 6), ("test", test, 3)):
        data = open_data(tmp_path, split=split, image_size=8)  # type: ignore[arg-type]
        assert len(data) == count and f"{tmp_path / name}:" in data.name(0)


def test_every_shard_counts_once_and_val_goes_before_test(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", 0, 6)
    shard(tmp_path / "valid-0.tar", 50, 3)
    shard(tmp_path / "test-0.tar", 60, 3)
    data = open_data(tmp_path, split="test", image_size=8)
    assert [data.name(n)[-8:-4] for n in range(len(data))] == ["0050", "0051", "0052"]
    assert data.remarks == (f"{tmp_path}: not used beside the splits: test-0.tar",)


def test_members_that_are_not_read_are_counted(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", 0, 3)
    more = {"a.png": png(1), "a.cls": b"1", "b.heic": b"x", "b.cls": b"1", "c.npy": b"x"}
    write_tar(tmp_path / "train-1.tar", more)
    data = open_data(tmp_path, image_size=8)
    assert len(data) == 4
    assert data.remarks == (
        f"{tmp_path}: 2 files ignored: Pillow cannot read them here (.heic 1, .npy 1)",
    )


def test_all_of_shards_without_splits(tmp_path: Path) -> None:
    shard(tmp_path / "s" / "a.tar", 0, 30)
    assert len(open_data(tmp_path / "s", split="test", image_size=8)) == 3
    assert len(open_data(tmp_path / "s", split="test", image_size=8, whole=True)) == 30


def test_links_and_second_images_of_a_sample_are_told(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", 0, 4, classes=2)
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        for name, kind in (("d/0008.png", tarfile.LNKTYPE), ("d/0009.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "d/0001.png"
            tar.addfile(member)
        member = tarfile.TarInfo("d/0002.png")
        member.size = len(png(77))
        tar.addfile(member, io.BytesIO(png(77)))
    data = open_data(tmp_path, whole=True, split="test", image_size=16)
    assert len(data) == 4
    assert sorted(int(data.source.read(n)[0, 0, 0]) for n in range(4)) == [0, 1, 3, 77]
    links, twice = data.remarks
    assert "2 links ignored" in links and "(d/0008.png, d/0009.png)" in links
    assert "1 images ignored: a later one has the same name" in twice and "d/0002.png" in twice
