"""What a network gives: its logits in any usual form, and whether they fit the data."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap import _torch
from rlawrap.errors import ConfigError, RLAError
from rlawrap.train.network.modes import evaluating


def heads(outputs: Any) -> list[Tensor]:
    """The main logits and those of auxiliary heads, of a network's outputs in any usual form.

    The first tensor is the main one. Auxiliary heads (GoogLeNet, Inception) give what it gives, in
    its shape; other tensors, such as features, are none.
    """
    tensors = [value for _, value in _named(outputs) if isinstance(value, Tensor)]
    return [*tensors[:1], *(t for t in tensors[1:] if _is_alike(t, tensors[0]))]


def left_out(outputs: Any) -> list[str]:
    """What else than heads a network gives, in words.

    >>> left_out({"logits": torch.zeros(2, 3), "aux": torch.zeros(2, 3), "maps": torch.zeros(2, 8)})
    ["'maps' (2, 8)"]
    """
    given = [(name, value) for name, value in _named(outputs) if value is not None]
    first = next((value for _, value in given if isinstance(value, Tensor)), None)
    return [
        _words(name, value)
        for name, value in given
        if first is not None
        and value is not first
        and not (isinstance(value, Tensor) and _is_alike(value, first))
    ]


def described(outputs: Any) -> str:
    """What a network gives, with the shapes, for a message.

    >>> described((torch.zeros(2, 3), None)), described(None)
    ('(2, 3) and None', 'None')
    """
    named = _named(outputs)
    if isinstance(outputs, Tensor) or not named:
        return _words("", outputs)
    return " and ".join(_words(name, value) for name, value in named[:6])


def _named(outputs: Any) -> list[tuple[str, Any]]:
    """Outputs with their names, where they have some."""
    if isinstance(outputs, Mapping):
        return [(str(name), value) for name, value in outputs.items()]
    if isinstance(outputs, (tuple, list)):
        names = getattr(outputs, "_fields", [""] * len(outputs))
        return list(zip(names, outputs, strict=True))
    return [("", outputs)]


def _is_alike(value: Tensor, main: Tensor) -> bool:
    return value.shape == main.shape and value.is_floating_point()


def _words(name: str, value: Any) -> str:
    if isinstance(value, Tensor):
        what = str(tuple(value.shape))
    else:
        what = "None" if value is None else f"a {type(value).__name__}"
    return f"{name!r} {what}" if name else what


def device_of(model: nn.Module) -> torch.device:
    """Where a network is.

    >>> device_of(nn.Flatten())
    device(type='cpu')
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def outputs_on(model: nn.Module, image: Tensor, name: str) -> Any:
    """What a network gives for one image, in evaluation mode; its `heads` are [1, classes].

    image: [C, H, W], on the network's device. Raises `ConfigError` when it fails or gives anything
    else; the network is left as it was.
    """
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(model):
            outputs = model(image[None])
    except RLAError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{name}: fails on an image of the data, of shape {tuple(image.shape)}: "
            f"{type(error).__name__}: {_torch.first_line(error).rstrip('.')}. Give it images as it "
            "takes them, by --image-size (from Python: image_size=) or a transform of your data "
            "set, or choose another classifier."
        ) from error
    found = heads(outputs)
    if not found or found[0].ndim != 2:
        raise ConfigError(
            f"{name}: gives {described(outputs)} for one image; expected logits, [1, classes], "
            "alone or before all else that it gives."
        )
    return outputs


def check_outputs(model: nn.Module, image: Tensor, num_classes: int, name: str) -> list[str]:
    """See that a network takes images of the data and gives a logit for each of its classes.

    Returns what else it gives, which is not learned from.
    """
    outputs = outputs_on(model, image, name)
    logits = heads(outputs)[0]
    if logits.shape[1] != num_classes:
        raise ConfigError(
            f"{name}: gives {logits.shape[1]} outputs, but the data has {num_classes} classes. A "
            "function of your own is told how many when it has a parameter num_classes; else say "
            "it by --model-arg."
        )
    return left_out(outputs)
