"""Image files as a user names them: files, and folders of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rlawrap.errors import DataError
from rlawrap.train.data.endings import ending_of, readable_endings


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files among the paths, and the images in and below the folders, in order of name.

    Linked folders are gone into and hidden files left out, as in folders of classes. Raises
    `DataError` for a path that is not there, or a folder without images or that cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                inside = sorted(_images_below(path, ()))
            except OSError as error:
                where = error.filename or path
                raise DataError(f"{where}: cannot be read ({error.strerror}).") from error
            if not inside:
                endings = ", ".join(sorted(readable_endings()))
                raise DataError(f"{path}: no images in it or below; they end in {endings}.")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder.")
    return found


def _images_below(folder: Path, above: tuple[tuple[int, int], ...]) -> list[Path]:
    status = os.stat(folder)
    own = (status.st_dev, status.st_ino)
    if own in above:
        raise DataError(f"{folder}: a link to a folder that it is in; remove it.")
    endings = readable_endings()
    found: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found += _images_below(folder / entry.name, (*above, own))
            elif ending_of(entry.name) in endings:
                found.append(folder / entry.name)
    return found
