"""`best.pt` and `best.json` of a run: the checkpoint of its best epoch, and the epoch's figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlawrap.errors import CheckpointError
from rlawrap.train.store import checkpoint
from rlawrap.train.store.checkpoint import Saved
from rlawrap.train.store.json_files import read_json_if_whole, write_json
from rlawrap.train.store.run_folder import RunFolder


def publish(saved: Saved, folder: RunFolder, figures: dict[str, Any]) -> None:
    """Make a checkpoint the best one of the run."""
    checkpoint.link_best(saved, folder.path)
    write_json(folder.best_file, _description(saved, figures))


def _description(saved: Saved, figures: dict[str, Any]) -> dict[str, Any]:
    """What best.json says: the figures, and the checkpoint's name, which holds its checksum."""
    name = checkpoint.file_name(epoch=saved.epoch, step=saved.step, digits=saved.digits)
    return {**figures, "checkpoint": name}


def repair(
    folder: RunFolder, figures: dict[str, Any] | None, source: Path, say: Callable[[str], None]
) -> None:
    """See that `best.pt` is the checkpoint of the best epoch so far, as a run is resumed.

    A run that was killed between its checkpoint and `best.pt` left the best of an earlier epoch;
    one that goes on from an older checkpoint left that of a later one.
    figures: those of the best epoch, None before the first. source: the checkpoint resumed.
    """
    if figures is None:
        _set_aside(folder, say)
        return
    now = _read(folder.best_checkpoint, figures)
    if now is not None:
        description = _description(now, figures)
        if read_json_if_whole(folder.best_file) != description:
            write_json(folder.best_file, description)
        return
    for path in _candidates(folder, figures["epoch"] + 1, source):
        saved = _read(path, figures)
        if saved is not None:
            publish(saved, folder, figures)
            say(f"{folder.best_checkpoint}: now {path.name}, of the best epoch so far")
            return
    _set_aside(folder, say)
    say(
        f"warning: the weights of the best epoch so far, epoch {figures['epoch'] + 1}, are in none "
        f"of the checkpoints. {folder.best_checkpoint.name} comes with the next better epoch."
    )


def _set_aside(folder: RunFolder, say: Callable[[str], None]) -> None:
    for path in (folder.best_file, folder.best_checkpoint):
        if path.exists():
            aside = checkpoint.move_aside(path, "superseded")
            say(f"{path}: not of the run as it is resumed; set aside as {aside.name}")


def _candidates(folder: RunFolder, epoch: int, source: Path) -> Iterator[Path]:
    """Files that may be the checkpoint written when so many epochs were done."""
    yield source
    # The checkpoint may be one of another run, whose own best one is then near it.
    for place in dict.fromkeys((folder.checkpoints, source.parent)):
        for saved in checkpoint.saved(place):
            if (saved.epoch, saved.step) == (epoch, 0):
                yield saved.path
    yield source.parent.parent / folder.best_checkpoint.name


def _read(path: Path, figures: dict[str, Any]) -> Saved | None:
    """A file, if it is a whole checkpoint of the epoch with these figures."""
    try:
        content, state = checkpoint.read_both(path)
    except CheckpointError:
        return None
    # Compared as text, in which NaN equals NaN.
    if not is_best(state) or json.dumps(state["standing"]["best"]) != json.dumps(figures):
        return None
    return Saved(path=path, digits=checkpoint.digits_of(content), **state["position"])


def is_best(state: dict[str, Any]) -> bool:
    """Whether a checkpoint was the best one when it was written."""
    if "best" in state:
        return bool(state["best"])
    # Without the field: it is, if written at the end of the epoch that is the best so far.
    position, figures = state["position"], state["standing"]["best"]
    return figures is not None and position == {"epoch": figures["epoch"] + 1, "step": 0}
