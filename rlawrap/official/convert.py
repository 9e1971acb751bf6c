"""Read and write the official code's checkpoints by splitting and joining weight columns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rlawrap.errors import CheckpointError
from rlawrap.official.layout import Entry, official_layout
from rlawrap.weights import fit_names, read_weights_file, state_dict_in

Model = TypeVar("Model", bound=nn.Module)
Source = str | os.PathLike[str] | Mapping[str, Any]


def load_official(model: Model, source: Source) -> Model:
    """Load weights of the official RLA-Net code into a preset, in place; returns the model.

    `source` is a file, a state dict or a training checkpoint (a dict with "state_dict"), with or
    without `module.`, `_orig_mod.`, `model.` and the like before its keys. It goes by structure:
    any depth, width, k and number of classes. No code in a file is run.

    Raises `CheckpointError` for a file that cannot be read so, and for one that does not fit: every
    missing, unexpected and misshapen tensor is listed, and the model is left as it was.

    >>> import rlawrap
    >>> model = rlawrap.models.rla_mobilenetv2_k6()
    >>> state = rlawrap.official_state_dict(model)
    >>> load_official(model, {"epoch": 3, "state_dict": state}) is model
    True
    """
    where = str(source) if isinstance(source, (str, os.PathLike)) else "the given state dict"
    own = model.state_dict()
    pieces: dict[str, Tensor] = {}
    problems: list[str] = []
    entries = official_layout(model)
    state = fit_names(read_official(source), [entry.key for entry in entries], where)
    for entry in entries:
        wanted = _shape(entry, own)
        value = state.get(entry.key)
        if entry.key not in state:
            problems.append(f"missing: {entry.key} {list(wanted)}")
        elif not isinstance(value, Tensor):
            problems.append(f"no tensor: {entry.key} is a {type(value).__name__}")
        elif tuple(value.shape) != wanted:
            problems.append(
                f"shape: {entry.key} is {list(value.shape)}, the model has {list(wanted)}"
            )
        else:
            pieces.update(_split(entry, value, own))
    known = {entry.key for entry in entries}
    problems += [f"unexpected: {key}" for key in state if key not in known]
    if problems:
        listed = "\n  ".join(problems)
        raise CheckpointError(
            f"{where} does not fit {type(model).__name__}, in {len(problems)} places:\n  {listed}"
        )
    with torch.no_grad():
        for key, value in pieces.items():
            own[key].copy_(value)
    return model


def official_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights under the official keys, in the official shapes and order; copies.

    Raises `CheckpointError` for a model that the official code could not build.

    >>> import rlawrap
    >>> state = official_state_dict(rlawrap.models.rla_resnet50())
    >>> state["stages.0.0.conv1.weight"].shape
    torch.Size([64, 96, 1, 1])
    """
    own = model.state_dict()
    return {
        entry.key: own[entry.parts[0]].clone()
        if entry.axis is None
        else torch.cat([own[part] for part in entry.parts], dim=entry.axis)
        for entry in official_layout(model)
    }


def read_official(source: Source) -> Mapping[str, Any]:
    """The state dict in a file or a mapping, under the names that it has there."""
    if isinstance(source, (str, os.PathLike)):
        return state_dict_in(read_weights_file(Path(source)), str(source))
    return state_dict_in(source, "the given checkpoint")


def _shape(entry: Entry, own: Mapping[str, Tensor]) -> tuple[int, ...]:
    shape = list(own[entry.parts[0]].shape)
    if entry.axis is not None:
        shape[entry.axis] = sum(own[part].shape[entry.axis] for part in entry.parts)
    return tuple(shape)


def _split(entry: Entry, value: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if entry.axis is None:
        return dict.fromkeys(entry.parts, value)
    sizes = [own[part].shape[entry.axis] for part in entry.parts]
    return dict(zip(entry.parts, value.split(sizes, dim=entry.axis), strict=True))
