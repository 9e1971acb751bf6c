from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from rlawrap.errors import DataError
from rlawrap.train.data.download import _one_at_a_time, cache_folder
from rlawrap.train.data.opening import open_data


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLAWRAP_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("RLAWRAP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "rlawrap"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "rlawrap"


def test_without_a_home_nothing_is_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("RLAWRAP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() is None
    for split in ("train", "test"):
        for kind in ("a", "b"):
            place = tmp_path / split / kind
            place.mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(place / "x.png")
            os.utime(place, (0, 0))
    assert len(open_data(tmp_path, split="train")) == 2
    with pytest.raises(DataError, match=r"cifar10: there is no home.*--data-root"):
        open_data("cifar10", split="train")


def test_downloads_of_one_folder_take_turns(tmp_path: Path) -> None:
    events: list[str] = []

    def work(name: str) -> None:
        with _one_at_a_time(tmp_path / "new" / "folder"):
            events.append(name)
            time.sleep(0.05)
            events.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events[::2] == events[1::2] and sorted(events) == list("aabbcc")
