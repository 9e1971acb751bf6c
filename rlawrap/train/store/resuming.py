"""What a run goes on from: which checkpoint of its folder, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlawrap.errors import CheckpointError, ConfigError, few
from rlawrap.train.config.going_on import CHANGEABLE
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.process.processes import Processes
from rlawrap.train.store import checkpoint
from rlawrap.train.store.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Source:
    """The checkpoint to resume; `content` and `digits` are there in process 0 alone."""

    path: Path
    content: bytearray | None
    digits: str = ""


def open_folder(
    config: TrainConfig, processes: Processes, folder: RunFolder, say: Callable[[str], None]
) -> Source | None:
    """See that the run may go on in its folder, and find what it goes on from; None: it is new.

    All processes call it together. Raises `ConfigError` and `CheckpointError`.
    """
    found: Source | None = None

    def find() -> Path | None:
        nonlocal found
        resume = prepare_folder(folder, config, processes.attempt)
        found = None if resume is None else find_source(folder, resume, say)
        return None if found is None else found.path

    path = processes.first_does(find)
    return found if found is not None or path is None else Source(path=path, content=None)


def find_source(folder: RunFolder, resume: str, say: Callable[[str], None]) -> Source | None:
    """Read a checkpoint, "auto" for the newest whole one; None when the run has none yet.

    Raises `CheckpointError` when there were some and none of them is whole.
    """
    if resume != "auto":
        content = checkpoint.read_bytes(Path(resume))
        digits = checkpoint.digits_of(content)
        return Source(path=Path(resume), content=content, digits=digits)
    for saved, content in checkpoint.newest_whole(folder.checkpoints, say):
        return Source(path=saved.path, content=content, digits=saved.digits)
    best, trouble = folder.best_checkpoint, "there is no best.pt."
    if best.is_file():
        try:
            content, _ = checkpoint.read_both(best)
        except CheckpointError as error:
            trouble = str(error)
        else:
            say(f"{folder.checkpoints}: no whole checkpoint is left; going on from {best.name}")
            return Source(path=best, content=content, digits=checkpoint.digits_of(content))
    if has_history(folder):
        raise CheckpointError(
            f"{folder.path} holds a run, but none of its checkpoints is whole, and {trouble} "
            "Nothing was overwritten. Put a copy of a checkpoint into "
            f"{folder.checkpoints}, or start anew with another --output."
        )
    say(f"{folder.path}: nothing to resume, starting anew")
    return None


def has_history(folder: RunFolder) -> bool:
    """Whether a run in this folder has ever written a checkpoint, whatever became of it."""
    if checkpoint.saved(folder.checkpoints) or folder.best_checkpoint.exists():
        return True
    if any(checkpoint.set_aside_files(folder.checkpoints)):
        return True
    # One epoch may have been judged without its checkpoint being written, but not two.
    return folder.judged_epochs() > 1


def prepare_folder(folder: RunFolder, config: TrainConfig, attempt: int) -> str | None:
    """See that the config may run in this folder; returns what to resume, or None.

    Raises `ConfigError` when another run is there, or this one and nobody said to resume it.
    """
    history = has_history(folder)
    before = folder.config()
    if before is not None and (history or folder.metrics_file.is_file()):
        if before.task != config.task:
            raise ConfigError(other_task(str(folder.path), before.task, config.task))
        differences = before.differences(config)
        if differences:
            raise ConfigError(
                f"{folder.path} holds a run of another configuration.\n  {listing(differences)}\n"
                f"{advice(differences)}"
            )
    resume = "auto" if attempt and history else config.resume
    if history and resume is None:
        raise ConfigError(
            f"{folder.path} already holds a run. Go on with it by --resume auto, or choose "
            "another --output."
        )
    if history and resume not in (None, "auto"):
        inside = Path(resume).resolve().is_relative_to(folder.path.resolve())
        if not inside:
            raise ConfigError(
                f"{folder.path} already holds a run, which {resume} is no part of. "
                "Choose another --output."
            )
    return resume


def other_task(where: str, before: str, now: str) -> str:
    """The words for a run that is to go on as one of another task.

    >>> other_task("runs/a", "detection", "segmentation")
    'runs/a: a run of the task detection, which cannot go on as one of segmentation. Say ...'
    """
    return (
        f"{where}: a run of the task {before}, which cannot go on as one of {now}. Say --task "
        f"{before}, or choose another --output and start from its weights with --finetune."
    )


def advice(differences: Iterable[str]) -> str:
    """What to do about fields that differ from those of the run there.

    >>> advice(["lr", "seed"])
    'Choose another --output, or give the same options. lr may change: --change lr=...'
    """
    text = "Choose another --output, or give the same options."
    may = [name for name in differences if name in CHANGEABLE]
    return f"{text} {', '.join(may)} may change: --change {may[0]}=..." if may else text


def listing(differences: dict[str, tuple[Any, Any]], separator: str = "\n  ") -> str:
    """The fields that differ between two configurations, for a message; one a line."""
    return separator.join(f"{n}: {a!r} there, {b!r} now" for n, (a, b) in differences.items())


def changed_splits(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What changed in the data since a checkpoint, with counts; its "data" field and ours."""
    changes = []
    for prefix, name in (("", "training"), ("test_", "test")):
        # Checkpoints of earlier versions say nothing of the test images.
        mark, count = f"{prefix}fingerprint", f"{prefix}images"
        if mark in before and before[mark] != now[mark]:
            changes.append(f"{before[count]} {name} images then, {now[count]} now")
    return changes


def class_changes(before: list[str], now: list[str]) -> str:
    """How the classes differ, in words.

    >>> class_changes(["cat", "dog"], ["cat", "emu"])
    '2 then, 2 now; gone: dog; new: emu'
    """
    parts = [f"{len(before)} then, {len(now)} now"]
    for title, some, others in (("gone", before, now), ("new", now, before)):
        names = [name for name in some if name not in others]
        if names:
            parts.append(f"{title}: {few(names)}")
    return "; ".join(parts) if len(parts) > 1 else f"{parts[0]}, in another order"
