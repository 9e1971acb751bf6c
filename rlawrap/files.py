"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO


def put_in_place(new: Path, path: Path) -> None:
    """Bring a file that was just written to the disk and give it the name `path`.

    Whatever happens meanwhile, `path` is what it was before or the new file, whole.
    """
    # Windows syncs only files that are open for writing; elsewhere a file may be read-only.
    with new.open("rb" if os.name == "posix" else "r+b") as file:
        os.fsync(file.fileno())  # or a crash of the machine could leave an empty file
    os.replace(new, path)
    sync_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file to write, which takes the place of `path` when the block ends without an error.

    What is there and is no file, such as /dev/stdout, is written to as it is. Raises `OSError`.
    """
    if path.exists() and not path.is_file():
        with path.open("w", newline="", encoding="utf-8") as file:
            yield file
        return
    path = path.resolve()  # a link stays one
    new = path.with_name(path.name + ".new")
    try:
        with new.open("w", newline="", encoding="utf-8") as file:
            yield file
        if path.exists():
            shutil.copymode(path, new)
        put_in_place(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def usual_mode() -> int:
    """The permissions that a new file has, where it was not made as a temporary one."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can do that by itself."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
