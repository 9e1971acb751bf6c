"""Checkpoints of a run: whole or not there, with the checksum in the name.

A file is called `epoch0003-step000120-<12 hex digits of its SHA-256>.pt`. It is written under
another name, synced to the disk and renamed, so a name that looks right belongs to a whole file;
the digits tell damage that came later. `best.pt` beside the checkpoints is one of them under
another name; `best.json` holds the first. It holds tensors and plain values only and is read with
`weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from rlawrap.errors import CheckpointError, TrainError
from rlawrap.files import put_in_place
from rlawrap.train.store.json_files import read_json_if_whole
from rlawrap.weights import parse_weights

FORMAT = 1
#: Names in a run folder.
CHECKPOINTS, BEST, BEST_JSON = "checkpoints", "best.pt", "best.json"
_NAME = re.compile(r"epoch(\d{4,})-step(\d{6,})-([0-9a-f]{12})\.pt")
#: Digits of the SHA-256 in a name.
DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint file and what its name says."""

    path: Path
    epoch: int
    step: int
    digits: str


class _Hashing(io.RawIOBase):
    """A file that computes the SHA-256 of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        try:
            return self.file.write(data)
        except OSError as error:  # which torch replaces by a RuntimeError of its own
            self.error = error
            raise


def saved(folder: Path) -> list[Saved]:
    """The checkpoints in a folder, newest first."""
    found = _listed(folder)
    return sorted(found, key=lambda s: (s.epoch, s.step, s.path.stat().st_mtime_ns), reverse=True)


def _listed(folder: Path) -> list[Saved]:
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match:
            epoch, step, digits = match.groups()
            found.append(Saved(path=path, epoch=int(epoch), step=int(step), digits=digits))
    return found


def file_name(*, epoch: int, step: int, digits: str) -> str:
    """The name of a checkpoint."""
    return f"epoch{epoch:04d}-step{step:06d}-{digits}.pt"


def digits_of(content: bytes | bytearray) -> str:
    """The part of a checkpoint's checksum that its name holds."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def adopt(path: Path, folder: Path, *, epoch: int, step: int, digits: str) -> Path:
    """Put a checkpoint that lies elsewhere among those of a folder; it stays where it is, too."""
    target = folder / file_name(epoch=epoch, step=step, digits=digits)
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _link_or_copy(path, folder / f".unfinished-{os.getpid()}", target)
    return target


def set_newer_aside(folder: Path, kept: Path) -> list[Path]:
    """Rename the checkpoints that are newer than one, which the run goes on from; their new names.

    Otherwise `--resume auto` would take them the next time, for a run that never had them.
    """
    files = [found.path for found in saved(folder)]
    newer = files[: files.index(kept)] if kept in files else []
    return [move_aside(path, "superseded") for path in newer]


def move_aside(path: Path, why: str) -> Path:
    """Rename a file so that it is taken for none of the run any more; nothing is overwritten."""
    aside = path.with_name(f"{path.name}.{why}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.{why}-{number}")
    os.replace(path, aside)
    return aside


def set_aside_files(folder: Path) -> list[Path]:
    """Checkpoints that were renamed since they cannot or must not be gone on from."""
    return sorted(folder.glob("epoch*.pt.*"))


def write(folder: Path, state: dict[str, Any], *, epoch: int, step: int) -> Saved:
    """Write a checkpoint so that it is there as a whole or not at all.

    Raises `TrainError` when it cannot be written (a full disk); the earlier ones are untouched.
    """
    unfinished = folder / f".unfinished-{os.getpid()}"
    hashing = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            hashing = _Hashing(file)
            torch.save({"format": FORMAT, **state}, cast(IO[bytes], hashing))
        digits = hashing.sha256.hexdigest()[:DIGITS]
        path = folder / file_name(epoch=epoch, step=step, digits=digits)
        put_in_place(unfinished, path)
    except (OSError, RuntimeError) as error:
        unfinished.unlink(missing_ok=True)
        reason = (hashing.error if hashing is not None else None) or error
        raise TrainError(
            f"{folder}: a checkpoint could not be written ({reason}). "
            "The earlier ones are whole; make room and go on with --resume auto."
        ) from error
    return Saved(path=path, epoch=epoch, step=step, digits=digits)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what killed writers left behind."""
    for old in saved(folder)[keep:]:
        old.path.unlink(missing_ok=True)
    for leftover in folder.glob(".unfinished-*"):
        leftover.unlink(missing_ok=True)


def link_best(saved_file: Saved, run: Path) -> Path:
    """Make `best.pt` in the run folder the same file, at once."""
    target = run / BEST
    new = run / f".best-{os.getpid()}"
    for leftover in run.glob(".best-*"):
        leftover.unlink(missing_ok=True)
    _link_or_copy(saved_file.path, new, target)
    return target


def read_bytes(path: Path) -> bytearray:
    """The content of a checkpoint, its checksum compared with that in the name or in best.json.

    Without one the checksums within the file are compared. Raises `CheckpointError` when the file
    is not there or is damaged.
    """
    expected = _expected_digits(path)
    try:
        content = bytearray(path.stat().st_size)
        with path.open("rb") as file:
            file.readinto(content)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    if not expected:
        _check_records(content, path)
    # A run that goes on may have replaced best.pt in between, so its digits are asked for again.
    elif digits_of(content) not in expected | _expected_digits(path):
        where = "its name" if _NAME.fullmatch(path.name) else BEST_JSON
        raise CheckpointError(f"{path}: damaged, its checksum is not the one in {where}.")
    return content


def _expected_digits(path: Path) -> set[str]:
    """The digits that a file may have; empty when nothing tells."""
    match = _NAME.fullmatch(path.name)
    if match:
        return {match.group(3)}
    if path.name != BEST:
        return set()
    described = read_json_if_whole(path.parent / BEST_JSON) or {}
    match = _NAME.fullmatch(str(described.get("checkpoint")))
    if match is None:  # of an earlier version, or damaged itself
        return set()
    # best.pt is replaced before best.json is; a process killed in between leaves it newer.
    return {match.group(3)} | {found.digits for found in _listed(path.parent / CHECKPOINTS)}


def _check_records(content: bytearray, path: Path) -> None:
    """Compare the CRC of each tensor in a zip file of `torch.save`, which `torch.load` does not."""
    if content[:4] != b"PK\x03\x04":
        return  # another format; what reads it will judge
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises half a dozen kinds
        raise CheckpointError(f"{path}: damaged ({error}).") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: damaged, the checksum of {damaged} in it is wrong.")


def parse(content: bytes | bytearray, path: Path | str) -> dict[str, Any]:
    """The state in a checkpoint's bytes, on the CPU. Raises `CheckpointError`."""
    state = parse_weights(content, path)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a checkpoint.")
    return state


def read(path: Path) -> dict[str, Any]:
    """The state of a training checkpoint. Raises `CheckpointError`."""
    return read_both(path)[1]


def read_both(path: Path) -> tuple[bytearray, dict[str, Any]]:
    """The content of a training checkpoint and the state in it. Raises `CheckpointError`."""
    content = read_bytes(path)
    state = parse(content, path)
    check_format(state, path)
    return content, state


def check_format(state: dict[str, Any], path: Path | str) -> None:
    """Raise `CheckpointError` unless the state is one that this version's trainer wrote."""
    if state.get("format") != FORMAT or "position" not in state:
        raise CheckpointError(
            f"{path}: not a training checkpoint of this version "
            f"(format {state.get('format')!r}, expected {FORMAT}). "
            "To start from its weights alone, use --finetune."
        )


def newest_whole(folder: Path, tell: Callable[[str], None]) -> Iterator[tuple[Saved, bytearray]]:
    """Checkpoints that can be read, newest first; damaged ones are told and set aside."""
    for candidate in saved(folder):
        try:
            content, _ = read_both(candidate.path)
        except CheckpointError as error:
            try:
                aside = move_aside(candidate.path, "damaged")
            except OSError:
                aside = candidate.path
            tell(f"{error} Set aside as {aside.name}; trying the one before.")
            continue
        yield candidate, content


def _link_or_copy(path: Path, new: Path, target: Path) -> None:
    """Make `target` the same file, at once; `new` is a name beside it for the time between."""
    new.unlink(missing_ok=True)
    try:
        os.link(path, new)
    except OSError:  # a file system without hard links
        new.write_bytes(path.read_bytes())
    put_in_place(new, target)
    new.unlink(missing_ok=True)  # replacing a file by itself does nothing
