"""Evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode, and every module back to the mode it had.

    >>> net = nn.Sequential(nn.Dropout().eval(), nn.Dropout())
    >>> with evaluating(net):
    ...     print(net[1].training)
    False
    >>> net[0].training, net[1].training
    (False, True)
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
