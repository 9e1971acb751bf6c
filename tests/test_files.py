"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlawrap.files import put_in_place, replacing


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, path = tmp_path / "a.new", tmp_path / "a"
    new.write_text("new")
    path.write_text("old")
    done: list[str] = []
    fsync = os.fsync

    def synced(handle: int) -> None:
        kind = "folder" if os.path.samestat(os.fstat(handle), tmp_path.stat()) else "file"
        done.append(f"{kind} while {path.read_text()}")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    put_in_place(new, path)
    assert done == ["file while old", "folder while new"]
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_a_file_that_may_not_be_written_to_is_put_in_place_too(tmp_path: Path) -> None:
    new = tmp_path / "a.new"
    new.write_text("new")
    new.chmod(0o444)
    put_in_place(new, tmp_path / "a")
    assert (tmp_path / "a").read_text() == "new"


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path, link = tmp_path / "a.csv", tmp_path / "link.csv"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    with pytest.raises(ZeroDivisionError), replacing(link) as file:
        file.write("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    with replacing(link) as file:
        file.write("new")
        assert path.read_text() == "old"
    assert link.is_symlink() and path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    with replacing(tmp_path / "b.csv") as file:
        file.write("first")
    assert (tmp_path / "b.csv").read_text() == "first"
    with replacing(Path(os.devnull)) as file:
        file.write("gone")
    assert not Path(os.devnull).is_file()
    with pytest.raises(IsADirectoryError), replacing(tmp_path) as file:
        pass
