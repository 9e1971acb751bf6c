"""Where downloads and indices are kept, and downloading by torchvision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rlawrap.errors import DataError
from rlawrap.train.data.dataset import Split


def cache_folder() -> Path | None:
    """`$RLAWRAP_CACHE`, else `$XDG_CACHE_HOME/rlawrap`, else `~/.cache/rlawrap`.

    None for a user without a home.
    """
    if chosen := os.environ.get("RLAWRAP_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "rlawrap"
    except RuntimeError:
        return None


def download_folder(name: str, root: Path | None) -> Path:
    """Where a data set is downloaded to. Raises `DataError` for a user without a home."""
    folder = cache_folder() if root is None else root
    if folder is None:
        raise DataError(
            f"{name}: there is no home directory to download it to. Give a folder, --data-root "
            "(from Python: root=), or set RLAWRAP_CACHE."
        )
    return folder


def download_with_torchvision(name: str, root: Path, split: Split, *, advice: str) -> Any:
    """The torchvision data set `name`, downloaded to `root` when it is not there yet.

    The processes of one machine take turns, so that the first downloads for all. Raises `DataError`
    with the advice when it cannot be had.
    """
    from torchvision import datasets

    try:
        with _one_at_a_time(root):
            return getattr(datasets, name)(str(root), train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{name}: not in {root}, and not to be had ({error}). {advice}") from error


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold a lock in the folder. Where none can be had (a read-only folder), go on without."""
    with ExitStack() as stack:
        with suppress(OSError, ImportError):  # Windows has no fcntl
            import fcntl

            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / ".download.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
