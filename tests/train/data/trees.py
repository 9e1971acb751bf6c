"""Writing small image trees."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

MakeTree = Callable[..., Path]


def write_image(path: Path, value: int, size: tuple[int, int] = (12, 10)) -> None:
    """A PNG or JPEG of one grey value, so that a test can tell images apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


def age(root: Path, seconds: int = 3600) -> None:
    """Make a tree look as if nothing in it changed lately."""
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            status = os.stat(path)
            moment = status.st_mtime_ns - seconds * 10**9
            os.utime(path, ns=(moment, moment))
