from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, features

from rlawrap.errors import DataError
from rlawrap.train.data import open_data
from rlawrap.train.data.endings import readable_endings
from tests.train.data.trees import MakeTree, age


def write(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.new("RGB", (16, 16), (200, 200, 200)).save(file, kind)


def test_what_pillow_reads_is_read(make_tree: MakeTree) -> None:
    root = make_tree("train", cat=1)
    kinds = {"a.jfif": "JPEG", "b.JPE": "JPEG", "c.jif": "JPEG", "d.apng": "PNG", "e.dib": "DIB",
             "f.tga": "TGA", "g.j2k": "JPEG2000", "h.pnm": "PPM", "i.pcx": "PCX", "j.QOI": "QOI",
             "k.ico": "ICO", "l.mpo": "MPO", "m.dds": "DDS", "n.sgi": "SGI"}  # fmt: skip
    if features.check("avif"):
        kinds["o.avif"] = "AVIF"
    for name, kind in kinds.items():
        write(root / "train" / "cat" / name, kind)
    data = open_data(root, image_size=16)
    assert len(data) == 1 + len(kinds) and data.remarks == ()
    for number in range(1, len(data)):
        assert data.source.read(number).float().mean() == pytest.approx(200, abs=3)


def test_what_is_no_image_is_not() -> None:
    assert not {".pdf", ".eps", ".mpg", ".h5", ".txt", ".mp4", ".csv", ""} & readable_endings()


def test_what_is_ignored_is_counted_with_the_reason(make_tree: MakeTree) -> None:
    root = make_tree("train", cat=2, dog=1)
    cat = root / "train" / "cat"
    for name in ("a.heic", "b.HEIC", "notes.txt", "README", ".DS_Store"):
        (cat / name).write_bytes(b"x")
    (root / "train" / "labels.csv").write_text("x")
    age(root)
    for _ in range(2):  # walked, and from the index that was kept
        data = open_data(root, image_size=16)
        assert len(data) == 3
        assert data.remarks == (
            f"{root}/train: 4 files ignored: Pillow cannot read them here (.heic 2); no image by "
            "their ending (none 1, .txt 1)",
            f"{root}/train: 1 files ignored: they lie in no class folder (labels.csv)",
        )


def test_a_class_of_unread_images_tells_which(make_tree: MakeTree) -> None:
    root = make_tree("train", cat=1, dog=0)
    (root / "train" / "dog" / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"dog \(1 files ignored: Pillow cannot read .*\.heic 1\)"):
        open_data(root, image_size=16)


def test_another_pillow_reads_the_folder_anew(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree("train", cat=1)
    write(root / "train" / "cat" / "a.qoi", "QOI")
    age(root)
    for module in ("folder", "shards"):
        monkeypatch.setattr(
            f"rlawrap.train.data.{module}.readable_endings", lambda: frozenset({".png"})
        )
    assert len(open_data(root, image_size=16)) == 1
    monkeypatch.undo()
    monkeypatch.setenv("RLAWRAP_CACHE", str(root.parent / "cache"))
    assert len(open_data(root, image_size=16)) == 2
