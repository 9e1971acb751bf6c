"""Images held in memory, and the IDX files that MNIST and Fashion-MNIST come in."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlawrap.errors import DataError


class ArraySource:
    """Images uint8 [N, H, W] or [N, H, W, C] with labels [N].

    Raises `DataError` when the counts differ or a label is not the number of a class.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer],
        *,
        classes: tuple[str, ...],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        description: str,
    ) -> None:
        if len(images) != len(labels):
            raise DataError(f"{description}: {len(images)} images but {len(labels)} labels.")
        wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if wrong.size:
            raise DataError(
                f"{description}: label {labels[wrong[0]]} of image {wrong[0]} is out of range "
                f"(0 to {len(classes) - 1}); {wrong.size} such labels."
            )
        channels_last = images[..., None] if images.ndim == 3 else images
        self.images = torch.from_numpy(channels_last.transpose(0, 3, 1, 2).copy())
        self.labels = labels.astype(np.int64)
        self.classes = classes
        self.channels = int(self.images.shape[1])
        # Networks for small images halve it a few times: 28 becomes 32.
        self.default_size = 32 * math.ceil(max(self.images.shape[2:]) / 32)
        self.mean = mean
        self.std = std
        self.description = description
        self.remarks: tuple[str, ...] = ()

    def read(self, index: int) -> Tensor:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"{self.description}, image {index}"

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(self.images.numpy().tobytes(), digest_size=16)
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes, gzipped or not.

    Raises `DataError` when the file is not IDX or does not hold what its header says.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{path}: not an IDX file of bytes.")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{path}: ends within its header.")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    array = np.frombuffer(content, np.uint8, offset=start)
    if array.size != int(np.prod(shape)):
        raise DataError(f"{path}: holds {array.size} bytes of data, its header says {shape}.")
    return array.reshape(shape)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write a gzipped IDX file; the same array gives the same bytes every time."""
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0))
