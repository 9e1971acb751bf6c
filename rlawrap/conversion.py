"""Checkpoint files between the official RLA-Net code's format and ours, in either direction."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlawrap.checkpoints import load, save, write_whole
from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.models import get_model, list_models
from rlawrap.official import load_official, official_state_dict
from rlawrap.official.convert import read_official

#: Of what does not fit, so many lines are shown.
SHOWN_PROBLEMS = 4


def from_official(
    source: Path,
    target: Path,
    arch: str,
    *,
    num_classes: int | None = None,
    k: int | None = None,
) -> None:
    """Read a checkpoint of the official code into the preset `arch` and save it in our format.

    The number of classes is read off the classifier unless it is given. Raises `CheckpointError`
    for a file that cannot be read or does not fit, and writes nothing then.
    """
    _refuse_same_file(source, target)
    state = read_official(source)
    arguments: dict[str, Any] = {"num_classes": num_classes or _classes(state, source)}
    if k is not None:
        arguments["k"] = k
    model = get_model(arch, **arguments)
    try:
        load_official(model, source)
    except CheckpointError as error:
        raise CheckpointError(_in_short(error, arch)) from None
    save(model, target)


def to_official(source: Path, target: Path) -> None:
    """Write one of our files as a checkpoint of the official code: {"state_dict": ...}.

    Raises `CheckpointError` for a model that the official code could not build.
    """
    _refuse_same_file(source, target)
    state = official_state_dict(load(source))
    write_whole(target, lambda new: torch.save({"state_dict": state}, new))


def _in_short(error: CheckpointError, arch: str) -> str:
    """A message of hundreds of lines, for a checkpoint of another network, as a few."""
    first, *problems = str(error).splitlines()
    if len(problems) <= SHOWN_PROBLEMS:
        return str(error)
    near = [n for n in difflib.get_close_matches(arch, list_models(), n=5) if n != arch]
    shown = "\n".join(problems[:SHOWN_PROBLEMS])
    return (
        f"{first}\n{shown}\n  ... and {len(problems) - SHOWN_PROBLEMS} more. "
        f"Is it of --arch {arch}? Names near it: {', '.join(near)}; "
        "`rlawrap models '*rla*'` lists all."
    )


def _classes(state: Mapping[str, Any], source: Path) -> int:
    """Rows of the last matrix, which is the classifier's weight."""
    matrices = [v for v in state.values() if isinstance(v, Tensor) and v.dim() == 2]
    if not matrices:
        raise CheckpointError(f"{source}: holds no classifier; give the number of classes.")
    return int(matrices[-1].shape[0])


def _refuse_same_file(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        raise ConfigError(f"convert: {source} would be written over itself.")
