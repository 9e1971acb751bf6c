"""Semantic segmentation: an image and a PNG file of class numbers for each scene."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rlawrap.errors import DataError, few
from rlawrap.train.data.decode import OBJECT, unreadable
from rlawrap.train.data.scenes.files import image_size, images_in
from rlawrap.train.data.scenes.records import LeftOut, Scene, SceneIndex
from rlawrap.train.data.scenes.transforms import IGNORED

#: Where names of classes are looked for, a name on each line, beside the folder of masks.
CLASSES_FILE = "classes.txt"


@cache
def _palette_numbers() -> dict[int, int]:
    """Class numbers by the colours of VOC's palette (red, green, blue as one number).

    Bits 0, 1, 2 of a number are the highest bits of red, green and blue, and so on.
    """
    numbers = {}
    for number in range(256):
        colour = [0, 0, 0]
        for bit in range(8):
            channel, place = bit % 3, 7 - bit // 3
            colour[channel] |= (number >> bit & 1) << place
        numbers[colour[0] << 16 | colour[1] << 8 | colour[2]] = number
    return numbers


def read_numbers(path: Path) -> NDArray[np.uint8]:
    """The class numbers of a mask file: uint8 [H, W], 255 where none is known.

    Grey files and files with a palette hold the numbers themselves; colour files the colours of
    VOC's palette. Raises `DataError` for other colours and damaged files.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(str(path), error) from error
    try:
        with Image.open(io.BytesIO(content)) as file:
            file.load()
            mode = file.mode
            pixels = np.asarray(file if mode in ("L", "P", "1", "I", "I;16") else _colour(file))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on a damaged file
        what = OBJECT.sub("", f"{type(error).__name__}: {error}").rstrip(": ")
        raise DataError(f"{path}: a broken mask ({what}). Remove or repair it.") from error
    if pixels.ndim == 3:
        return _of_colours(pixels, path)
    if pixels.dtype != np.uint8 and pixels.size and int(pixels.max()) > IGNORED:
        raise DataError(
            f"{path}: class number {int(pixels.max())}; numbers are 0 to 254, and 255 for pixels "
            "of no class."
        )
    return pixels.astype(np.uint8)


def _colour(file: Image.Image) -> Image.Image:
    return file.convert("RGB")


def _of_colours(pixels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    wide = pixels.astype(np.int64)
    packed = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    colours, places = np.unique(packed, return_inverse=True)
    known = _palette_numbers()
    unknown = [f"#{colour:06x}" for colour in colours.tolist() if colour not in known]
    if unknown:
        raise DataError(
            f"{path}: a mask in colours that VOC's palette does not have: {few(unknown, 3)}. Write "
            "class numbers as a grey image."
        )
    numbers = np.array([known[colour] for colour in colours.tolist()], np.uint8)
    return numbers[places].reshape(packed.shape)


def read_classes(path: Path, count: int) -> Tensor:
    """The classes of the pixels of a mask file: uint8 [H, W], each below `count` or 255.

    Raises `DataError` for a number that is no class's, and what `read_numbers` does.
    """
    numbers = read_numbers(path)
    wrong = (numbers >= count) & (numbers != IGNORED)
    if wrong.any():
        raise DataError(
            f"{path}: class number {int(numbers[wrong].max())}, but there are {count} classes "
            f"(0 to {count - 1}, and 255 for pixels of no class)."
        )
    return torch.from_numpy(numbers.copy())


def read_masks(images: Path, masks: Path, *, classes: Sequence[str] | None = None) -> SceneIndex:
    """Pairs of image and mask of the same name, in order of name.

    classes: names, that of number 0 first; else those of classes.txt beside `masks` or its folder,
    else as many numbers as the masks hold. Images without a mask are left out. Raises `DataError`
    for masks without an image, and where there is no pair at all.
    """
    pictures, labels = images_in(images), images_in(masks)
    by_stem = {Path(name).with_suffix("").as_posix(): name for name in labels}
    stems = {Path(name).with_suffix("").as_posix(): name for name in pictures}
    alone = sorted(set(by_stem) - set(stems))
    if alone:
        raise DataError(
            f"{masks}: {len(alone)} masks without an image of that name in {images}: "
            f"{few([by_stem[stem] for stem in alone], 3)}."
        )
    pairs = sorted(set(by_stem) & set(stems))
    if not pairs:
        raise DataError(
            f"{masks}: no mask for any of the {len(pictures)} images in {images}; a mask has the "
            "name of its image and ends in .png."
        )
    missing = sorted(set(stems) - set(by_stem))
    why = "images without a mask, left out"
    names = tuple(classes) if classes is not None else _class_names(masks, labels)
    # Below one root, so that an index can be moved.
    return SceneIndex(
        root=images,
        source=str(masks),
        scenes=tuple(
            _scene(images, stems[stem], masks / by_stem[stem], number + 1, pictures[stems[stem]])
            for number, stem in enumerate(pairs)
        ),
        things=((),) * len(pairs),
        classes=names,
        category_ids=tuple(range(len(names))),
        left_out=(LeftOut(reason=why, count=len(missing), first=stems[missing[0]]),)
        if missing
        else (),
    )


def _scene(images: Path, name: str, mask: Path, number: int, size: int) -> Scene:
    import os

    width, height = image_size(images / name)
    below = Path(os.path.relpath(mask, images)).as_posix()
    return Scene(file=name, id=number, width=width, height=height, size=size, mask=below)


def _class_names(masks: Path, files: Sequence[str] | dict[str, int]) -> tuple[str, ...]:
    for folder in (masks, masks.parent, masks.parent.parent):
        path = folder / CLASSES_FILE
        if path.is_file():
            return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    most = 0
    for name in files:
        numbers = read_numbers(masks / name)
        held = numbers[numbers != IGNORED]
        most = max(most, int(held.max()) if held.size else 0)
    return tuple(map(str, range(most + 1)))
