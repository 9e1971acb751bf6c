"""Images in one folder per class, with or without train/ and val/ above them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rlawrap.errors import DataError
from rlawrap.train.data.dataset import Split
from rlawrap.train.data.decode import EXTENSIONS, decode, unreadable
from rlawrap.train.data.index import SampleIndex, Watched, holdout, load_or_build, stamp_of

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Folders walked at once: on a network disk a walk is mostly waiting.
WALKERS = 8
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("val", "test", "valid", "validation"),
}


class FolderSource:
    """RGB images of an index, read from below `root`."""

    channels: int = 3
    default_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __init__(self, root: Path, index: SampleIndex, description: str) -> None:
        self.root = root
        self.index = index
        self.classes = index.classes
        self.labels = index.labels
        self.description = description

    def read(self, index: int) -> Tensor:
        name = self.name(index)
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise unreadable(name, error) from error
        return decode(content, self.channels, name)

    def name(self, index: int) -> str:
        return os.path.join(self.root, self.index.name(index))

    def fingerprint(self) -> str:
        return self.index.fingerprint()


def split_folder(root: Path, split: Split) -> Path | None:
    """The sub-folder that holds a split, if there is one."""
    found = (root / name for name in SPLIT_FOLDERS[split] if (root / name).is_dir())
    return next(found, None)


def open_folder(root: Path, split: Split) -> tuple[FolderSource, NDArray[np.int64] | None]:
    """The images of a split, and their numbers when the split is a part of one tree.

    With train/ or val/ (or test/, valid/, validation/) below `root` those are the splits, and the
    classes are those of train/. Otherwise a tenth of each class is held out for testing.

    Raises `DataError` for a missing or empty folder, a class folder without images, a split that
    is not there, or a class in val/ that train/ does not have.
    """
    folders = {each: split_folder(root, each) for each in SPLIT_FOLDERS}
    if not any(folders.values()):
        index = _index(root, None)
        return FolderSource(root, index, f"{root} ({split}: a tenth held out)"), holdout(
            index, split
        )
    folder = folders[split]
    if folder is None:
        raise DataError(
            f"{root}: has {next(filter(None, folders.values())).name}/ but no folder for the "
            f"{split} split; expected one of {', '.join(SPLIT_FOLDERS[split])}."
        )
    above = folders["train"]
    classes = None if above is None else _class_folders(above)
    return FolderSource(folder, _index(folder, classes), str(folder)), None


def _index(folder: Path, classes: list[str] | None) -> SampleIndex:
    key = "\0".join(["folder", str(folder.resolve()), *(classes or [])])
    return load_or_build(key, lambda: build_folder_index(folder, classes))


def _class_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()
        )


def build_folder_index(folder: Path, classes: list[str] | None = None) -> SampleIndex:
    """Walk a tree of class folders: classes in order of name, images in order of path.

    `classes` gives the class numbers when they come from elsewhere (val/ has those of train/).
    Hidden files and what is no image by its ending are left out.
    """
    present = _class_folders(folder)
    if not present:
        raise DataError(f"{folder}: no class folders in it; expected {folder.name}/CLASS/IMAGE.")
    known = present if classes is None else classes
    unknown = sorted(set(present) - set(known))
    if unknown:
        raise DataError(
            f"{folder}: {len(unknown)} class folders that the training split does not have: "
            f"{', '.join(unknown[:5])}."
        )
    watched = [stamp_of(str(folder))]
    names: list[str] = []
    labels: list[int] = []
    sizes: list[int] = []
    empty = []
    numbers = {name: number for number, name in enumerate(known)}
    with ThreadPoolExecutor(WALKERS) as pool:
        walks = pool.map(lambda name: _walk(str(folder / name), name, ()), present)
        for name, (found, folders) in zip(present, walks, strict=True):
            found.sort()
            if not found:
                empty.append(name)
            names += [path for path, _ in found]
            sizes += [size for _, size in found]
            labels += [numbers[name]] * len(found)
            watched += folders
    if empty:
        raise DataError(
            f"{folder}: {len(empty)} class folders without images: {', '.join(empty[:5])}. "
            f"Remove them or fill them; images end in {', '.join(sorted(EXTENSIONS))}."
        )
    return SampleIndex.of(
        classes=tuple(known), names=names, labels=labels, sizes=sizes, watched=watched
    )


def _walk(
    folder: str, below: str, above: tuple[tuple[int, int], ...]
) -> tuple[list[tuple[str, int]], list[Watched]]:
    """The images at any depth, (path relative to the split's folder, size), and the folders."""
    status = os.stat(folder)
    own = (status.st_dev, status.st_ino)
    if own in above:
        raise DataError(f"{folder}: a link to a folder that it is in; remove it.")
    found: list[tuple[str, int]] = []
    folders = [stamp_of(folder)]
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir():
                inside, further = _walk(entry.path, f"{below}/{name}", (*above, own))
                found += inside
                folders += further
            elif name[name.rfind(".") :].lower() in EXTENSIONS:
                found.append((f"{below}/{name}", _size(entry)))
    return found, folders


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # a link to nothing: reading it will name it
        return 0
