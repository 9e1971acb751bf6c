"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlawrap.files import put_in_place


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
