"""A list of samples that is quick to load: built once, cached, rebuilt when the tree changes.

A million paths as Python strings cost 100 MB in every loader worker, and walking the tree takes
minutes on a network disk. The index is four arrays instead, kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlawrap.errors import DataError
from rlawrap.files import put_in_place
from rlawrap.train.data.dataset import Split
from rlawrap.train.data.download import cache_folder

log = logging.getLogger(__name__)

VERSION = 2
# A folder changed this recently may change again within its file system's clock tick, unseen.
SETTLED_NS = 2_000_000_000
HOLDOUT = 0.1


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What an index was made from, as it was then: a folder or a tar file, with its stamp."""

    path: str
    stamp: str


@dataclass(frozen=True, kw_only=True)
class SampleIndex:
    """Samples in a fixed order, as arrays.

    names: bytes of all names, one after the other; ends: where each name ends. labels: class
    numbers. sizes: bytes of each image. places: (shard, offset) for tar shards, else empty.
    watched: what must not have changed for the index to hold. remarks: what a user should know of
    the data, such as files that were left out, a sentence each.
    """

    classes: tuple[str, ...]
    names: NDArray[np.uint8]
    ends: NDArray[np.int64]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    places: NDArray[np.int64]
    watched: tuple[Watched, ...]
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        classes: tuple[str, ...],
        names: list[str],
        labels: list[int],
        sizes: list[int],
        watched: Iterable[Watched],
        places: list[tuple[int, int]] | None = None,
        remarks: Iterable[str] = (),
    ) -> SampleIndex:
        """An index from plain lists."""
        encoded = [os.fsencode(name) for name in names]
        return cls(
            classes=classes,
            names=np.frombuffer(b"".join(encoded), np.uint8),
            ends=np.cumsum([len(name) for name in encoded], dtype=np.int64),
            labels=np.asarray(labels, np.int64),
            sizes=np.asarray(sizes, np.int64),
            places=np.asarray(places or [], np.int64).reshape(-1, 2),
            watched=tuple(watched),
            remarks=tuple(remarks),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Name of sample `index`."""
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.names[start : self.ends[index]].tobytes())

    def fingerprint(self) -> str:
        """Depends on the names, labels and sizes; not on where the data lies or its times."""
        digest = hashlib.blake2b("\0".join(self.classes).encode(), digest_size=16)
        for array in (self.names, self.ends, self.labels, self.sizes):
            digest.update(array.tobytes())
        return digest.hexdigest()


def stamp_of(path: str) -> Watched:
    """A folder's stamp is its modification time, a file's has its size too. Raises `OSError`."""
    status = os.stat(path)
    size = "" if os.path.isdir(path) else f"/{status.st_size}"
    return Watched(path=path, stamp=f"{status.st_mtime_ns}{size}")


def load_or_build(key: str, build: Callable[[], SampleIndex]) -> SampleIndex:
    """The cached index of `key` when all it watches is unchanged, else a new one, then cached.

    A cache that cannot be read or written is no error: the index is built. Raises `DataError` when
    the data cannot be read.
    """
    name = hashlib.blake2b(os.fsencode(key), digest_size=12).hexdigest()
    folder = cache_folder()
    path = None if folder is None else folder / "index" / f"{name}.npz"
    cached = None if path is None else _read(path)
    if cached is not None and _holds(cached.watched):
        return cached
    started = time.time_ns()
    try:
        index = build()
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from error
    newest = max((int(item.stamp.split("/")[0]) for item in index.watched), default=0)
    if path is not None and newest < started - SETTLED_NS:
        _write(path, index)
    return index


def _holds(watched: tuple[Watched, ...]) -> bool:
    try:
        return all(stamp_of(item.path) == item for item in watched)
    except OSError:
        return False


def _read(path: Path) -> SampleIndex | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if int(stored["version"]) != VERSION:
                return None
            pairs = zip(stored["paths"].tolist(), stored["stamps"].tolist(), strict=True)
            return SampleIndex(
                classes=tuple(stored["classes"].tolist()),
                names=stored["names"],
                ends=stored["ends"],
                labels=stored["labels"],
                sizes=stored["sizes"],
                places=stored["places"],
                watched=tuple(Watched(path=path, stamp=stamp) for path, stamp in pairs),
                remarks=tuple(stored["remarks"].tolist()),
            )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("the index in %s is damaged (%s); building it again", path, error)
        return None


def _write(path: Path, index: SampleIndex) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            temporary = file.name
            np.savez(
                file,
                version=np.int64(VERSION),
                classes=np.array(index.classes, np.str_),
                names=index.names,
                ends=index.ends,
                labels=index.labels,
                sizes=index.sizes,
                places=index.places,
                paths=np.array([item.path for item in index.watched], np.str_),
                stamps=np.array([item.stamp for item in index.watched], np.str_),
                remarks=np.array(index.remarks, np.str_),
            )
        put_in_place(Path(temporary), path)
    except (OSError, UnicodeError) as error:
        log.warning("the index of the images could not be kept in %s (%s)", path, error)
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def holdout(index: SampleIndex, split: Split) -> NDArray[np.int64]:
    """Sample numbers of a split, for data that comes without one.

    Of each class with at least two samples a tenth, at least one, is held out for testing. A hash
    of the name decides which, so that the choice is the same on every machine.
    """
    keys = np.array(
        [
            hashlib.blake2b(os.fsencode(index.name(number)), digest_size=8).digest()
            for number in range(len(index))
        ],
        dtype="S8",
    )
    order = np.lexsort((keys, index.labels))
    counts = np.bincount(index.labels, minlength=len(index.classes))
    test = np.zeros(len(index), bool)
    start = 0
    for count in counts.tolist():
        held = max(1, round(HOLDOUT * count)) if count > 1 else 0
        test[order[start : start + held]] = True
        start += count
    return np.flatnonzero(test if split == "test" else ~test).astype(np.int64)
