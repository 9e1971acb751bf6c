from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlawrap.errors import DataError
from rlawrap.train.data.image_files import find_images
from tests.train.data.trees import write_image


def test_folders_are_walked_as_those_of_classes_are(tmp_path: Path) -> None:
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    for name in ("top/b.png", "top/a/c.png", "top/.hidden/d.png", "elsewhere/e.png"):
        write_image(tmp_path / name, 10)
    (top / "._b.png").write_bytes(b"what macOS leaves beside an image")
    (top / "notes.txt").touch()
    (top / "linked").symlink_to(elsewhere)
    expected = [top / "a" / "c.png", top / "b.png", top / "linked" / "e.png"]
    assert find_images([top]) == expected
    assert find_images([elsewhere / "e.png", top]) == [elsewhere / "e.png", *expected]
    (elsewhere / "again").symlink_to(elsewhere)
    with pytest.raises(DataError, match=r"again: a link to a folder that it is in; remove it"):
        find_images([top])


def test_folders_that_cannot_be_read_and_none_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no images in it or below; they end in .*\.png"):
        find_images([tmp_path / "empty"])
    with pytest.raises(DataError, match=r"gone\.png: no such file or folder"):
        find_images([tmp_path / "gone.png"])
    write_image(tmp_path / "shut" / "a.png", 10)
    scandir = os.scandir

    def refuse(folder: Path) -> object:  # permissions do not bind root
        if Path(folder).name == "shut":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"shut: cannot be read \(Permission denied\)"):
        find_images([tmp_path])
