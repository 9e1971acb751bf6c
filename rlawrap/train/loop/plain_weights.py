"""Weights that are no run's: the network they are of, and the names of its classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlawrap.design.names import is_added
from rlawrap.errors import CheckpointError, few
from rlawrap.official import is_official, load_official
from rlawrap.official.layout import official_layout
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.network.build import build_model, in_last_layer, load_weights, read_weights
from rlawrap.weights import fit_names, read_weights_file

#: Where training code keeps the names of classes beside the weights.
_NAMES = ("classes", "class_names", "class_to_idx")
#: The classes that a network is first built with, to see how many its weights have.
_USUAL = 1000


def load_weights_of(path: str | Path, config: TrainConfig, num_classes: int) -> nn.Module:
    """The network that `config.arch` names with the weights in a file, in evaluation mode.

    Takes what `--finetune` takes, and checkpoints of the official code; but all weights of the
    network must be there. Raises `CheckpointError` otherwise.
    """
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, num_classes)
    weights = read_weights(Path(path))
    if is_official(model, weights):
        load_official(model, weights)
    else:
        kept = load_weights(model, Path(path), weights)
        missing = [name for name in kept if not name.endswith("num_batches_tracked")]
        if missing:
            raise CheckpointError(
                f"{path}: has {len(missing)} weights less than {config.arch} with {num_classes} "
                f"classes, or of other shapes: {few(missing, 5)}. Choose the --arch, --model-arg "
                "and data that they are of."
            )
    return model.eval()


def count_classes(path: str | Path, config: TrainConfig) -> int:
    """How many classes the weights in a file tell apart, by their last layer.

    `num_classes` among the arguments of the network's builder says it as well.
    """
    if "num_classes" in config.model_kwargs:
        return int(config.model_kwargs["num_classes"])
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, _USUAL)
    weights = read_weights(Path(path))
    own = {name: name for name in model.state_dict()}
    if is_official(model, weights):
        own = {part: entry.key for entry in official_layout(model) for part in entry.parts}
    state = fit_names(weights, own.values(), path)
    last = [key for name, key in own.items() if not is_added(name) and in_last_layer(model, name)]
    rows = {len(state[key]) for key in last if key in state and state[key].ndim}
    return rows.pop() if len(rows) == 1 else _USUAL


def class_names(path: str | Path) -> tuple[str, ...] | None:
    """The names of classes that a file of weights holds; None if it holds none.

    A checkpoint has them under `classes`, `class_names` or `class_to_idx` (names with their
    numbers), a safetensors file under the same words in its metadata, as JSON.
    """
    path = Path(path)
    found: Any
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            found = {name: _json(text) for name, text in (file.metadata() or {}).items()}
    else:
        found = read_weights_file(path)
    values = [found.get(name) for name in _NAMES] if isinstance(found, Mapping) else []
    return next((names for names in map(_as_names, values) if names), None)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _as_names(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, Mapping):
        numbers = [number for number in value.values() if isinstance(number, int)]
        counted = sorted(numbers) == [*range(len(value))]
        value = sorted(value, key=value.__getitem__) if counted else None
    named = isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)
    return tuple(value) if named else None
