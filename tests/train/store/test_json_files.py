from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rlawrap.train.store.json_files import read_json, read_json_if_whole, write_json


def test_small_files_are_on_the_disk_before_they_replace_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        done.append("sync")
        sync(handle)

    def replaced(old: Path, new: Path) -> None:
        done.append(f"replace {new.name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_json(tmp_path / "a.json", {"a": 1})
    assert done[:2] == ["sync", "replace a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_what_is_no_object_of_json_is_told_or_taken_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_json_if_whole(path) is None
    with pytest.raises(FileNotFoundError):
        read_json(path)
    for content in (b"", b"{", b"[]", b"\xff"):
        path.write_bytes(content)
        assert read_json_if_whole(path) is None
        with pytest.raises(ValueError):
            read_json(path)
    write_json(path, {"a": [1]})
    assert read_json(path) == read_json_if_whole(path) == {"a": [1]}
