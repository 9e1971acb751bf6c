"""An image file's bytes to uint8 [C, H, W]."""

from __future__ import annotations

import io
import re

import torch
from PIL import Image
from torch import Tensor

from rlawrap.errors import DataError, UnreadableError

OBJECT = re.compile(r" ?<_io\.BytesIO object at \w+>")  # Pillow puts it where the name would be
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
)


def unreadable(name: str, error: OSError) -> UnreadableError:
    """The error for a file that could not be opened or read."""
    return UnreadableError(
        f"{name}: cannot be read ({error.strerror}). See that the data is there and that its disk "
        "works; such an image is never skipped."
    )


def decode(content: bytes, channels: int, name: str) -> Tensor:
    """Decode an image of any format that Pillow knows to uint8 [channels, H, W].

    Raises `DataError` with `name` for whatever cannot be decoded whole.
    """
    from torchvision.transforms.v2 import functional as F  # takes a second, see transforms.py

    try:
        with Image.open(io.BytesIO(content)) as file:
            palette = file.mode == "P" and "transparency" in file.info
            image = file.convert("RGBA") if palette else file
            tensor: Tensor = F.pil_to_tensor(image.convert("RGB" if channels == 3 else "L"))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on a damaged file
        what = OBJECT.sub("", f"{type(error).__name__}: {error}").rstrip(": ")
        raise DataError(
            f"{name}: a broken image ({what}). Remove or repair it, or skip such images "
            '(on_bad_image="skip", --on-bad-image skip).'
        ) from error
    return tensor.to(torch.uint8)
