"""Polygons and run lengths to masks and back, by pycocotools."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlawrap.errors import DataError, RLAError
from rlawrap.train.data.scenes.records import Polygons, Rle


def coco_mask() -> Any:
    """`pycocotools.mask`. Raises `RLAError` when it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise RLAError(
            "Masks of COCO's form need pycocotools. Install it with: "
            "pip install 'rlawrap[detection]'"
        ) from error
    return mask


def mask_of(shape: Polygons | Rle, height: int, width: int, where: str) -> Tensor:
    """The mask of a thing: uint8 [height, width]; polygons of one thing are put together.

    Raises `DataError` with `where` for run lengths of another size or that are damaged.

    >>> mask_of(((1, 1, 3, 1, 3, 3, 1, 3),), 4, 4, "a square").sum().item()
    4
    """
    mask = coco_mask()
    if isinstance(shape, Rle):
        if (shape.height, shape.width) != (height, width):
            raise DataError(
                f"{where}: a mask of {shape.width} x {shape.height} pixels in a scene of "
                f"{width} x {height}. Masks have the size of their image."
            )
        packed = _packed(shape, where)
    else:
        packed = mask.merge(mask.frPyObjects([list(each) for each in shape], height, width))
    with warnings.catch_warnings():
        # Its arrays do not know NumPy 2's way to ask for a copy.
        warnings.simplefilter("ignore", DeprecationWarning)
        decoded = mask.decode(packed)
    return torch.from_numpy(np.ascontiguousarray(decoded))


def _packed(shape: Rle, where: str) -> Any:
    """As pycocotools holds it. It reads past its own memory for counts that do not add up."""
    size = [shape.height, shape.width]
    if isinstance(shape.counts, str):
        counts = unpacked(shape.counts)
    else:
        counts = list(shape.counts)
    if counts is None or min(counts, default=0) < 0 or sum(counts) != shape.height * shape.width:
        raise DataError(
            f"{where}: run lengths that do not add up to the {size[1]} x {size[0]} pixels of "
            "their mask. Write them again, or take the thing out."
        )
    return coco_mask().frPyObjects({"size": size, "counts": counts}, *size)


def unpacked(counts: str) -> list[int] | None:
    """Run lengths from COCO's packed text; None for what is no such text.

    Five bits a character from code 48 on, the sixth says that more follow; from the fourth number
    on each is the difference to the one two before it.

    >>> unpacked("52203")
    [5, 2, 2, 2, 5]
    """
    numbers: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value = shift = 0
    return None if shift else numbers


def to_rle(mask: Tensor) -> dict[str, Any]:
    """COCO's packed run lengths of a mask [H, W], as results have them.

    >>> to_rle(torch.eye(2))["size"]
    [2, 2]
    """
    packed = coco_mask().encode(np.asfortranarray(mask.to(torch.uint8).cpu().numpy()))
    return {"size": [int(side) for side in packed["size"]], "counts": packed["counts"].decode()}


def masks_of(
    shapes: Sequence[Polygons | Rle], height: int, width: int, wheres: Sequence[str]
) -> Tensor:
    """The masks of several things: uint8 [n, height, width]."""
    masks = [
        mask_of(shape, height, width, where) for shape, where in zip(shapes, wheres, strict=True)
    ]
    return torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.uint8)
