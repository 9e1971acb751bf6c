"""Checkpoint files between the official RLA-Net code's format and ours, in either direction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlawrap.checkpoints import load, save, write_whole
from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.models import get_model
from rlawrap.official import load_official, official_state_dict
from rlawrap.official.convert import read_official


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
    save(load_official(get_model(arch, **arguments), source), target)


def to_official(source: Path, target: Path) -> None:
    """Write one of our files as a checkpoint of the official code: {"state_dict": ...}.

    Raises `CheckpointError` for a model that the official code could not build.
    """
    _refuse_same_file(source, target)
    state = official_state_dict(load(source))
    write_whole(target, lambda new: torch.save({"state_dict": state}, new))


def _classes(state: Mapping[str, Any], source: Path) -> int:
    """Rows of the last matrix, which is the classifier's weight."""
    matrices = [v for v in state.values() if isinstance(v, Tensor) and v.dim() == 2]
    if not matrices:
        raise CheckpointError(f"{source}: holds no classifier; give the number of classes.")
    return int(matrices[-1].shape[0])


def _refuse_same_file(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        raise ConfigError(f"convert: {source} would be written over itself.")
