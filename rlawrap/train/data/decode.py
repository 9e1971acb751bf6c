"""An image file's bytes to uint8 [C, H, W]."""

from __future__ import annotations

import io
import re

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rlawrap.errors import DataError, UnreadableError

OBJECT = re.compile(r" ?<_io\.BytesIO object at \w+>")  # Pillow puts it where the name would be

# What brings an image upright, by the EXIF orientation that it is stored in.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262


class _NoRange(Exception):
    """Pixels whose black and white the file does not tell."""


def unreadable(name: str, error: OSError) -> UnreadableError:
    """The error for a file that could not be opened or read."""
    return UnreadableError(
        f"{name}: cannot be read ({error.strerror}). See that the data is there and that its disk "
        "works; such an image is never skipped."
    )


def decode(content: bytes, channels: int, name: str, *, exif_orientation: bool = True) -> Tensor:
    """Decode an image of any format that Pillow knows to uint8 [channels, H, W].

    More than 8 bits are scaled down, by the range that the file says. exif_orientation: bring a
    photograph upright, as its EXIF data says; otherwise it comes as its pixels are stored.

    Raises `DataError` with `name` for whatever cannot be decoded whole, and for 32-bit pixels, for
    which no range is agreed on.
    """
    from torchvision.transforms.v2 import functional as F  # takes a second, see transforms.py

    try:
        with Image.open(io.BytesIO(content)) as file:
            file.load()
            turn = _UPRIGHT.get(_orientation(file)) if exif_orientation else None
            image = _eight_bits(file)
            if turn is not None:
                image = image.transpose(turn)
            tensor: Tensor = F.pil_to_tensor(image.convert("RGB" if channels == 3 else "L"))
    except MemoryError:
        raise
    except _NoRange as error:
        raise DataError(
            f"{name}: {error}, and no file says which of its values are black and white. Convert "
            "such images to 8 or 16 bits, or skip them "
            '(on_bad_image="skip", --on-bad-image skip).'
        ) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on a damaged file
        what = OBJECT.sub("", f"{type(error).__name__}: {error}").rstrip(": ")
        raise DataError(
            f"{name}: a broken image ({what}). Remove or repair it, or skip such images "
            '(on_bad_image="skip", --on-bad-image skip).'
        ) from error
    return tensor.to(torch.uint8)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image; 1 when it has none that can be read.

    Pillow turns TIFF files by itself as it loads them, and takes the entry away.
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data beside a sound image
        return 1
    return value if isinstance(value, int) else 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits per channel, in any mode that `convert` takes as it is meant.

    Pillow's own `convert` clips what has more, so that nearly all of it becomes white.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        return _scaled(image, 2 ** _bits(image) - 1)
    if mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits; Pillow has scaled PPM's to them
        return _scaled(image, 2**16 - 1)
    if mode in ("I", "F"):
        kind = "whole numbers" if mode == "I" else "floating point numbers"
        raise _NoRange(f"its pixels are {kind} (mode {mode} of Pillow, {image.format})")
    return image.convert("RGBA") if mode == "P" and "transparency" in image.info else image


def _bits(image: Image.Image) -> int:
    """Bits of a pixel of a grey image in one of the modes I;16; TIFF has 12, too."""
    tags = getattr(image, "tag_v2", None)
    bits = tags.get(_BITS_PER_SAMPLE, (16,)) if tags is not None else (16,)
    return int(bits[0] if isinstance(bits, tuple) else bits)


def _scaled(image: Image.Image, white: int) -> Image.Image:
    """A grey image of whole numbers, 0 to `white`, with 8 bits."""
    pixels: NDArray[np.int64] = np.asarray(image).astype(np.int64)
    grey = (pixels * 255 + white // 2) // white
    tags = getattr(image, "tag_v2", None)
    if tags is not None and tags.get(_PHOTOMETRIC) == 0:  # 0 is white; Pillow minds it at 8 bits
        grey = 255 - grey
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))
