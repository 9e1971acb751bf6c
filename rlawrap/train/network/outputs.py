"""What a network gives: its logits in any usual form, and whether they fit the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlawrap import _torch
from rlawrap.errors import ConfigError, RLAError
from rlawrap.train.network.modes import evaluating


def heads(outputs: Any) -> list[Tensor]:
    """The main logits and those of auxiliary heads, of a network's outputs in any usual form."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [value for value in values if isinstance(value, Tensor)]


def outputs_on(model: nn.Module, image: Tensor, name: str) -> Tensor:
    """The logits that a network gives for one image, in evaluation mode: [1, classes].

    image: [C, H, W], on the network's device. Raises `ConfigError` when it fails or gives anything
    else; the network is left as it was.
    """
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(model):
            found = heads(model(image[None]))
    except RLAError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{name}: fails on an image of the data, of shape {tuple(image.shape)}: "
            f"{type(error).__name__}: {_torch.first_line(error)}."
        ) from error
    if not found or found[0].ndim != 2:
        shape = tuple(found[0].shape) if found else "nothing"
        raise ConfigError(f"{name}: gives {shape} for one image; expected logits, [1, classes].")
    return found[0]


def check_outputs(model: nn.Module, image: Tensor, num_classes: int, name: str) -> None:
    """See that a network takes images of the data and gives a logit for each of its classes."""
    logits = outputs_on(model, image, name)
    if logits.shape[1] != num_classes:
        raise ConfigError(
            f"{name}: gives {logits.shape[1]} outputs, but the data has {num_classes} classes. A "
            "function of your own is told how many when it has a parameter num_classes; else say "
            "it by --model-arg."
        )
