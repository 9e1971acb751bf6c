"""Image files as a user names them: files, and folders of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rlawrap.errors import DataError
from rlawrap.train.data.endings import readable_endings
from rlawrap.train.data.folder import walk


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files among the paths, and the images in and below the folders, in order of name.

    Linked folders are gone into and hidden files left out, as in folders of classes. Raises
    `DataError` for a path that is not there, or a folder without images or that cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                inside = sorted(Path(name) for name, _ in walk(str(path), str(path)).images)
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
