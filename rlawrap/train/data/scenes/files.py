"""Image files below a folder, and their sizes without decoding them."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from rlawrap.errors import DataError
from rlawrap.train.data.decode import OBJECT, unreadable
from rlawrap.train.data.endings import ending_of, readable_endings

#: EXIF's tag of the orientation, and its values that swap height and width.
_ORIENTATION, _SWAPS = 0x0112, (5, 6, 7, 8)


def images_in(folder: Path) -> dict[str, int]:
    """Image files at any depth below a folder and their bytes, by path below it, in order.

    Hidden files are left out. Raises `DataError` for a folder that is not there.
    """
    endings = readable_endings()
    found: dict[str, int] = {}

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from error

    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and ending_of(name) in endings:
                path = Path(place, name)
                found[path.relative_to(folder).as_posix()] = bytes_of(path)
    return dict(sorted(found.items()))


def bytes_of(path: Path) -> int:
    """Bytes of a file; 0 for a link to nothing, which reading will name."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image once it is upright, from its header. Raises `DataError`."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            turned = file.format != "TIFF" and file.getexif().get(_ORIENTATION) in _SWAPS
    except OSError as error:
        if error.strerror:
            raise unreadable(str(path), error) from error
        what = OBJECT.sub("", str(error))
        raise DataError(f"{path}: a broken image ({what}). Remove or repair it.") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on a damaged file
        raise DataError(f"{path}: a broken image ({error}). Remove or repair it.") from error
    return (height, width) if turned else (width, height)
