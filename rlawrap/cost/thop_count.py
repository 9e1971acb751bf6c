"""The count of `thop`, as a second opinion. Optional: `pip install 'rlawrap[cost]'`."""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from rlawrap.cost.count import shadow_of
from rlawrap.cost.inputs import Example


def thop_available() -> bool:
    """Whether `thop` can be imported (the package is called ultralytics-thop)."""
    return importlib.util.find_spec("thop") is not None


def count_with_thop(model: nn.Module, example: Example) -> int | None:
    """Operations as `thop` counts them, or None where it is not installed.

    It runs on a shadow without memory, so the buffers and hooks it registers never meet the model.
    """
    if not thop_available():
        return None
    from thop import profile

    shadow = shadow_of(model)
    args, kwargs = example.arguments(shadow)
    if kwargs:
        raise TypeError("thop takes no keyword arguments")
    # Outside the shadow's mode, so that thop's own counters are real numbers.
    with torch.no_grad():
        operations, _ = profile(shadow.root, inputs=args, verbose=False)
    return int(operations)
