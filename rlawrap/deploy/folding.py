"""A network made ready for export: its norms folded, its input normalised where that is asked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.copying import deep_copy
from rlawrap.errors import ConfigError, RLAError
from rlawrap.fuse import Target, fuse
from rlawrap.splice.inside import rewritten_in

#: Mean and standard deviation of ImageNet's images, for values from 0 to 1.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Normalization = tuple[Sequence[float], Sequence[float]]


class Normalized(nn.Module):
    """A network that first brings images to the values that it knows: (x - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, normalize: Normalization) -> None:
        super().__init__()
        self.model = model
        first = next(model.parameters())
        for name, values in zip(("mean", "std"), normalize, strict=True):
            tensor = torch.tensor(tuple(values), dtype=first.dtype, device=first.device)
            self.register_buffer(name, tensor.reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Any:
        return self.model((x - self.mean) / self.std)


def check_normalization(normalize: Normalization | None, channels: int) -> None:
    """Raise `ConfigError` unless there is a mean and a positive deviation for each channel."""
    if normalize is None:
        return
    if len(normalize) != 2 or any(len(values) not in (1, channels) for values in normalize):
        raise ConfigError(
            f"export: normalize= takes (mean, std), {channels} numbers each, one for each channel "
            f"of the input; got {normalize!r}."
        )
    if any(value <= 0 for value in normalize[1]):
        raise ConfigError(f"export: normalize=: a deviation must be positive; got {normalize[1]}.")


def folded(model: nn.Module, target: Target) -> tuple[nn.Module, str]:
    """A network for inference that computes what `model` does, and what was done in words."""
    if rewritten_in(model):
        try:
            return fuse(model, target=target), f"with hidden state, fused for {target}"
        except RLAError as error:
            return deep_copy(model), f"with hidden state, as it is: {error}"
    from torch.fx.experimental.optimization import fuse as fold_norms

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fold_norms(model), "without hidden state, norms folded by torch"
    except Exception:  # it traces symbolically, which many a forward does not allow
        return deep_copy(model), "without hidden state, as it is (torch cannot fold its norms)"
