"""Images in one folder per class, with or without train/ and val/ above them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rlawrap.errors import DataError, few, printable
from rlawrap.train.data.dataset import Split
from rlawrap.train.data.decode import decode, unreadable
from rlawrap.train.data.endings import ending_of, ignored_words, readable_endings
from rlawrap.train.data.index import SampleIndex, Watched, holdout, load_or_build, stamp_of
from rlawrap.train.data.splits import SPLIT_NAMES, folders_in, read_layout, slashed, speak_of_splits

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Folders walked at once: on a network disk a walk is mostly waiting.
WALKERS = 8


class FolderSource:
    """RGB images of an index, read from below `root`."""

    channels: int = 3
    default_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __init__(
        self,
        root: Path,
        index: SampleIndex,
        description: str,
        *,
        remarks: tuple[str, ...] = (),
        exif_orientation: bool = True,
    ) -> None:
        self.root = root
        self.index = index
        self.classes = index.classes
        self.labels = index.labels
        self.description = description
        self.remarks = (*index.remarks, *remarks)
        self.exif_orientation = exif_orientation

    def read(self, index: int) -> Tensor:
        name = self.name(index)
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise unreadable(name, error) from error
        return decode(content, self.channels, name, exif_orientation=self.exif_orientation)

    def name(self, index: int) -> str:
        return os.path.join(self.root, self.index.name(index))

    def fingerprint(self) -> str:
        return self.index.fingerprint()


def open_folder(
    root: Path, split: Split, *, whole: bool = False, exif_orientation: bool = True
) -> tuple[FolderSource, NDArray[np.int64] | None]:
    """The images of a split, and their numbers when the split is a part of one tree.

    Where `read_layout` finds splits below `root`, the classes are those of the training split.
    Otherwise a tenth of each class is held out for testing, or all are taken (`whole`).

    Raises `DataError` for a missing or empty folder, a class folder without images, a split that
    is not there, a class in the test split that the training split does not have, or what
    `read_layout` does.
    """
    layout = read_layout(root)
    if not layout.folders:
        index = _index(root, None)
        words = f"{root} (all of it)" if whole else f"{root} ({split}: a tenth held out)"
        source = FolderSource(root, index, words, exif_orientation=exif_orientation)
        return source, None if whole else holdout(index, split)
    folder = layout.folder(split)
    if folder is None:
        raise DataError(
            f"{root}: has {layout.folders[0].name}/ but no folder for the {split} split; expected "
            f"one of {', '.join(name for names in SPLIT_NAMES[split] for name in names)}"
            + (f", and found {slashed(layout.unused)}." if layout.unused else ".")
        )
    classes = None if layout.train is None else folders_in(layout.train)
    unused = f"not used beside the splits: {slashed(layout.unused)}"
    return FolderSource(
        folder,
        _index(folder, classes),
        str(folder),
        remarks=(f"{root}: {unused}",) if layout.unused else (),
        exif_orientation=exif_orientation,
    ), None


def _index(folder: Path, classes: list[str] | None) -> SampleIndex:
    # Another Pillow may read other files.
    endings = ",".join(sorted(readable_endings()))
    key = "\0".join(["folder", endings, str(folder.resolve()), *(classes or [])])
    return load_or_build(key, lambda: build_folder_index(folder, classes))


@dataclass(kw_only=True)
class Found:
    """What is in a class folder: images (path below the split's folder, size) at any depth, all
    folders, the names of those at its top, and the endings of what was left out.
    """

    images: list[tuple[str, int]] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    at_top: int = 0
    ignored: Counter[str] = field(default_factory=Counter)


def build_folder_index(folder: Path, classes: list[str] | None = None) -> SampleIndex:
    """Walk a tree of class folders: classes in order of name, images in order of path.

    `classes` gives the class numbers when they come from elsewhere (val/ has those of train/).
    Hidden files are left out, and what is no image by its ending, which is counted. Raises
    `DataError` for folders that are no class folders.
    """
    present = folders_in(folder)
    if not present:
        raise DataError(_no_class_folders(folder))
    known = present if classes is None else classes
    unknown = sorted(set(present) - set(known))
    if unknown:
        raise DataError(
            f"{folder}: {len(unknown)} class folders that the training split does not have: "
            f"{few([printable(name) for name in unknown], 5)}."
        )
    with ThreadPoolExecutor(WALKERS) as pool:
        walks = list(pool.map(lambda name: walk(str(folder / name), name), present))
    found = dict(zip(present, walks, strict=True))
    _check_classes(folder, found)
    numbers = {name: number for number, name in enumerate(known)}
    images = [(*image, numbers[name]) for name in present for image in sorted(found[name].images)]
    return SampleIndex.of(
        classes=_class_names(folder, known),
        names=[name for name, _, _ in images],
        labels=[label for _, _, label in images],
        sizes=[size for _, size, _ in images],
        watched=[stamp_of(str(folder)), *(folder for each in walks for folder in each.watched)],
        remarks=[f"{folder}: {words}" for words in _remarks(found, _files_in(folder))],
    )


def _class_names(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes, which every file and terminal takes, by those of their folders."""
    classes = tuple(printable(name) for name in names)
    if len(set(classes)) < len(classes):
        (twice, _), *_ = Counter(classes).most_common(1)
        raise DataError(f"{folder}: two class folders are called {twice}. Rename one of them.")
    return classes


def _no_class_folders(folder: Path) -> str:
    endings = readable_endings()
    images = sum(ending_of(name) in endings for name in _files_in(folder))
    return (
        f"{folder}: no class folders in it"
        + (f", but {images} images; put those of each class in a folder" if images else "")
        + f"; expected {folder.name}/CLASS/IMAGE."
    )


def _check_classes(folder: Path, found: dict[str, Found]) -> None:
    """Raise `DataError` for class folders that are empty, or hold splits."""
    empty = [name for name, each in found.items() if not each.images]
    if empty:
        ignored = sum((found[name].ignored for name in empty), Counter[str]())
        words = f" ({ignored_words(ignored)})" if ignored else ""
        raise DataError(
            f"{folder}: {len(empty)} class folders without images: "
            f"{few([printable(name) for name in empty], 5)}{words}. "
            f"Remove them or fill them; images end in {', '.join(sorted(readable_endings()))}."
        )
    split = {name: within for name, each in found.items() if (within := _splits_in(each))}
    if split:
        name, within = next(iter(split.items()))
        raise DataError(
            f"{folder}: {len(split)} of its {len(found)} folders hold splits, such as "
            f"{printable(name)}/ with {slashed(within)}. Splits stand above the class "
            f"folders, as in train/CLASS/IMAGE; if {printable(name)} is a data set, give "
            f"{folder / name}."
        )


def _splits_in(found: Found) -> list[str]:
    return [] if found.at_top else speak_of_splits(found.inside)


def _remarks(found: dict[str, Found], loose: Sequence[str]) -> list[str]:
    """What was left out, and whether the classes may be the folders one level further down."""
    remarks = []
    if words := ignored_words(sum((each.ignored for each in found.values()), Counter())):
        remarks.append(words)
    if loose:
        remarks.append(
            f"{len(loose)} files ignored: they lie in no class folder ({few(sorted(loose), 3)})"
        )
    shared = set.intersection(*(set(each.inside) for each in found.values()))
    if len(found) > 1 and len(shared) > 1 and not any(each.at_top for each in found.values()):
        remarks.append(
            f"the classes are {slashed(list(found), 4)}, and each of them holds the folders "
            f"{slashed(sorted(shared), 4)}. If those are the classes, give a folder one level "
            "further down"
        )
    return [printable(remark) for remark in remarks]


def _files_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [e.name for e in entries if not e.name.startswith(".") and not e.is_dir()]


def walk(folder: str, below: str, above: tuple[tuple[int, int], ...] = ()) -> Found:
    """What is in a folder, at any depth; `below` is how its images' paths begin.

    Links are followed and hidden files left out. Raises `DataError` for a link to a folder that it
    is in, given by `above`, and `OSError` for a folder that cannot be read.
    """
    status = os.stat(folder)
    own = (status.st_dev, status.st_ino)
    if own in above:
        raise DataError(f"{folder}: a link to a folder that it is in; remove it.")
    endings = readable_endings()
    found = Found(watched=[stamp_of(folder)])
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir():
                further = walk(entry.path, f"{below}/{name}", (*above, own))
                found.images += further.images
                found.watched += further.watched
                found.ignored += further.ignored
                found.inside.append(name)
            elif ending_of(name) in endings:
                found.images.append((f"{below}/{name}", _size(entry)))
                found.at_top += 1
            else:
                found.ignored[ending_of(name)] += 1
    return found


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # a link to nothing: reading it will name it
        return 0
