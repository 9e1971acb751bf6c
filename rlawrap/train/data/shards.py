"""Tar shards as WebDataset writes them, read at random through an index of their members.

In a shard `00042.jpg` and `00042.cls` (the class number, as text) make one sample. The index knows
for every image its shard, offset and size, so that any sample is one read: resuming in the middle
of an epoch costs nothing, and no process reads what another one needs.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rlawrap.errors import DataError, few
from rlawrap.train.data.dataset import Split
from rlawrap.train.data.decode import decode, unreadable
from rlawrap.train.data.endings import readable_endings
from rlawrap.train.data.folder import IMAGENET_MEAN, IMAGENET_STD
from rlawrap.train.data.index import SampleIndex, Watched, holdout, load_or_build, stamp_of
from rlawrap.train.data.shard_headers import LeftOut, read_headers
from rlawrap.train.data.splits import SPLIT_NAMES, exact_split, likely_split, read_layout, words_of

OPEN_SHARDS = 64
CLASS_NAMES = "classes.txt"


class ShardSource:
    """RGB images of an index of tar files."""

    channels: int = 3
    default_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __init__(
        self,
        index: SampleIndex,
        description: str,
        *,
        remarks: tuple[str, ...] = (),
        exif_orientation: bool = True,
    ) -> None:
        self.index = index
        self.classes = index.classes
        self.labels = index.labels
        self.description = description
        self.remarks = (*index.remarks, *remarks)
        self.exif_orientation = exif_orientation
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
        return decode(content, self.channels, name, exif_orientation=self.exif_orientation)

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
    """Whether a folder, or those of its splits, holds tar files."""
    if any(root.glob("*.tar")):
        return True
    return any(any(folder.glob("*.tar")) for folder in read_layout(root).folders)


def open_shards(
    root: Path, split: Split, *, whole: bool = False, exif_orientation: bool = True
) -> tuple[ShardSource, NDArray[np.int64] | None]:
    """The samples of a split, and their numbers when the split is a part of the shards.

    The splits are tar files in `root` whose names speak of them (train-000.tar, val-000.tar), or
    tar files in folders as `read_layout` finds them; otherwise a tenth of each class is held out
    for testing, or all are taken (`whole`). Class names are the lines of `classes.txt` in `root`;
    without it they are the numbers up to the highest label of all splits.

    Raises `DataError` for a split without shards, or what `build_shard_index` does.
    """
    files, unused = _shards_by_split(root)
    together = not any(files.values())
    every = sorted(root.glob("*.tar")) if together else [*files["train"], *files["test"]]
    wanted = every if together else files[split]
    if not wanted:
        raise DataError(
            f"{root}: no tar files for the {split} split among {few([f.name for f in every], 5)}."
        )
    classes = _class_names(root)
    if classes is None:
        highest = max(int(_index(root, [file], None).labels.max()) for file in every)
        classes = tuple(str(number) for number in range(highest + 1))
    index = _index(root, wanted, classes)
    part = "all of them" if whole else f"{split}: a tenth held out"
    words = f"{len(wanted)} shards; {part}" if together else f"{len(wanted)} {split} shards"
    left = f"{root}: not used beside the splits: {few([file.name for file in unused], 4)}"
    source = ShardSource(
        index,
        f"{root} ({words})",
        remarks=(left,) if unused else (),
        exif_orientation=exif_orientation,
    )
    return source, holdout(index, split) if together and not whole else None


def _shards_by_split(root: Path) -> tuple[dict[Split, list[Path]], list[Path]]:
    """The tar files of each split, and those of none; no file of a split when none is told apart.

    Where names tell none of a split, its folder is looked at. A name speaks of a split by its first
    word; or by another one, where there are names for both (imagenet-train-000.tar and -val-).
    """
    tars = sorted(file for file in root.glob("*.tar") if file.is_file())
    spoken = {file: _spoken(file) for file in tars}
    first = {file: each for file, each in spoken.items() if each and each[2]}
    kinds = {split for each in spoken.values() if each for split in [each[0]]}
    named = {f: e for f, e in spoken.items() if e} if len(kinds) == 2 else first
    files: dict[Split, list[Path]] = {split: [] for split in SPLIT_NAMES}
    for split in files:
        groups = {group for kind, group, _ in named.values() if kind == split}
        # Of val and test the first, as with folders.
        files[split] = [f for f, e in named.items() if e[0] == split and e[1] == min(groups)]
    if not all(files.values()):
        layout = read_layout(root)
        for split, folder in (("train", layout.train), ("test", layout.test)):
            if folder is not None and not files[split]:
                files[split] = sorted(folder.glob("*.tar"))
    used = {file for each in files.values() for file in each}
    return files, [file for file in tars if file not in used] if used else []


def _spoken(file: Path) -> tuple[Split, int, bool] | None:
    """The split that a tar file's name speaks of, its group of names, and whether it begins so."""
    likely = likely_split(file.stem)
    if likely is None:
        return None
    words = words_of(file.stem)
    exact = [place for word in words if (place := exact_split(word)) is not None]
    group = exact[0][1] if exact else 0
    return likely[0], group, likely_split(words[0]) is not None


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
    endings = ",".join(sorted(readable_endings()))
    paths = [str(path.resolve()) for path in shards]
    key = "\0".join(["shards 2", endings, *paths, "", *(classes or ())])
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
    left_out = LeftOut()
    for number, shard in enumerate(shards):
        watched.append(stamp_of(str(shard)))
        images, numbers = read_headers(shard, left_out)
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
    sentences = left_out.sentences()
    if not names:
        raise DataError(
            f"{shards[0].parent}: no images in {len(shards)} tar files"
            + (f" ({'; '.join(sentences)})." if sentences else ".")
        )
    return SampleIndex.of(
        classes=classes or (),
        names=names,
        labels=labels,
        sizes=sizes,
        places=places,
        watched=watched,
        remarks=[f"{shards[0].parent}: {words}" for words in sentences],
    )
