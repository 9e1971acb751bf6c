"""Tar shards as WebDataset writes them, read at random through an index of their members.

In a shard `00042.jpg` and `00042.cls` (the class number, as text) make one sample. The index knows
for every image its shard, offset and size, so that any sample is one read: resuming in the middle
of an epoch costs nothing, and no process reads what another one needs.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rlawrap.errors import DataError
from rlawrap.train.data.dataset import Split
from rlawrap.train.data.decode import EXTENSIONS, decode, unreadable
from rlawrap.train.data.folder import IMAGENET_MEAN, IMAGENET_STD, SPLIT_FOLDERS, split_folder
from rlawrap.train.data.index import SampleIndex, Watched, holdout, load_or_build, stamp_of

OPEN_SHARDS = 64
CLASS_NAMES = "classes.txt"
SHARD_CLASS = re.compile(rb"\s*\d+\s*")


class ShardSource:
    """RGB images of an index of tar files."""

    channels: int = 3
    default_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __init__(self, index: SampleIndex, description: str) -> None:
        self.index = index
        self.classes = index.classes
        self.labels = index.labels
        self.description = description
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, index: int) -> Tensor:
        shard, offset = self.index.places[index].tolist()
        size = int(self.index.sizes[index])
        name = self.name(index)
        try:
            # pread has no file position, so that forked workers may share a descriptor.
            content = os.pread(self._descriptor(shard), size, offset)
        except OSError as error:
            raise unreadable(name, error) from error
        if len(content) != size:
            raise DataError(f"{name}: the shard ends within it.")
        return decode(content, self.channels, name)

    def name(self, index: int) -> str:
        shard = self.index.watched[int(self.index.places[index, 0])].path
        return f"{shard}:{self.index.name(index)}"

    def fingerprint(self) -> str:
        return self.index.fingerprint()

    def _descriptor(self, shard: int) -> int:
        if shard not in self._open:
            if len(self._open) >= OPEN_SHARDS:
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = os.open(self.index.watched[shard].path, os.O_RDONLY)
        self._open.move_to_end(shard)
        return self._open[shard]

    def close(self) -> None:
        """Close the tar files; the next read opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        self.close()


def holds_shards(root: Path) -> bool:
    """Whether a folder, or its train/ or val/, holds tar files."""
    folders = [root, *(split_folder(root, each) for each in SPLIT_FOLDERS)]
    return any(folder is not None and any(folder.glob("*.tar")) for folder in folders)


def open_shards(root: Path, split: Split) -> tuple[ShardSource, NDArray[np.int64] | None]:
    """The samples of a split, and their numbers when the split is a part of the shards.

    The splits are `train*.tar` and `val*.tar` (or `test*.tar`) in `root`, or tar files in its
    train/ and val/; otherwise a tenth of each class is held out for testing. Class names are the
    lines of `classes.txt` in `root`; without it they are the numbers up to the highest label of all
    splits.

    Raises `DataError` for a split without shards, or what `build_shard_index` does.
    """
    files = {each: _split_shards(root, each) for each in SPLIT_FOLDERS}
    together = not any(files.values())
    every = sorted(root.glob("*.tar")) if together else [*files["train"], *files["test"]]
    wanted = every if together else files[split]
    if not wanted:
        raise DataError(f"{root}: no tar files for the {split} split.")
    classes = _class_names(root)
    if classes is None:
        highest = max(int(_index(root, [file], None).labels.max()) for file in every)
        classes = tuple(str(number) for number in range(highest + 1))
    index = _index(root, wanted, classes)
    if together:
        source = ShardSource(index, f"{root} ({len(wanted)} shards; {split}: a tenth held out)")
        return source, holdout(index, split)
    return ShardSource(index, f"{root} ({len(wanted)} {split} shards)"), None


def _split_shards(root: Path, split: Split) -> list[Path]:
    folder = split_folder(root, split)
    if folder is not None and (inside := sorted(folder.glob("*.tar"))):
        return inside
    return sorted(
        file
        for name in SPLIT_FOLDERS[split]
        for file in root.glob(f"{name}*.tar")
        if file.is_file()
    )


def _class_names(root: Path) -> tuple[str, ...] | None:
    path = root / CLASS_NAMES
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); write a class name a line.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _index(root: Path, shards: list[Path], classes: tuple[str, ...] | None) -> SampleIndex:
    key = "\0".join(["shards", *(str(path.resolve()) for path in shards), "", *(classes or ())])
    return load_or_build(key, lambda: build_shard_index(shards, classes))


def build_shard_index(shards: list[Path], classes: tuple[str, ...] | None) -> SampleIndex:
    """Read the headers of tar files: samples in order of shard and place.

    Raises `DataError` for a file that is no uncompressed tar, an image without a class or a class
    that is no number, a label out of range, and shards without any image.
    """
    names: list[str] = []
    labels: list[int] = []
    sizes: list[int] = []
    places: list[tuple[int, int]] = []
    watched: list[Watched] = []
    for number, shard in enumerate(shards):
        watched.append(stamp_of(str(shard)))
        images, numbers = _read_headers(shard)
        if unlabelled := sorted(set(images) - set(numbers)):
            raise DataError(
                f"{shard}: {len(unlabelled)} images without a .cls beside them, "
                f"such as {unlabelled[0]}."
            )
        for key, (name, offset, size) in images.items():
            if classes is not None and numbers[key] >= len(classes):
                raise DataError(
                    f"{shard}:{key}.cls: label {numbers[key]} is out of range "
                    f"(0 to {len(classes) - 1})."
                )
            names.append(name)
            labels.append(numbers[key])
            sizes.append(size)
            places.append((number, offset))
    if not names:
        raise DataError(f"{shards[0].parent}: no images in {len(shards)} tar files.")
    return SampleIndex.of(
        classes=classes or (),
        names=names,
        labels=labels,
        sizes=sizes,
        places=places,
        watched=watched,
    )


def _read_headers(shard: Path) -> tuple[dict[str, tuple[str, int, int]], dict[str, int]]:
    """Images (name, offset, size) and class numbers of one shard, by key."""
    images: dict[str, tuple[str, int, int]] = {}
    numbers: dict[str, int] = {}
    end = 0
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                key = f"{folder}/{stem}"
                if not member.isfile():
                    continue
                if f".{ending.lower()}" in EXTENSIONS:
                    images[key] = (member.name, member.offset_data, member.size)
                elif ending == "cls":
                    numbers[key] = _class_number(shard, tar, member)
                tar.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
        with shard.open("rb") as file:  # tarfile takes a file cut short for a whole one
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end-of-archive block")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard}: not a whole, uncompressed tar file ({error}).") from error
    return images, numbers


def _class_number(shard: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    file = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if not SHARD_CLASS.fullmatch(content):
        raise DataError(f"{shard}:{member.name}: {content[:20]!r} is not a class number.")
    return int(content)
