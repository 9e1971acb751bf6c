"""Which modules a forward asks for their `training` while it is traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes_asked(counts: Callable[[], bool]) -> Iterator[dict[int, bool]]:
    """Collects the modules (by id) that are asked for their mode, and what they answered.

    `training` is a plain attribute, and a branch on it leaves no node in a graph. So for as long as
    one network is traced it is a property of `nn.Module`, whose methods torch.fx patches then, too.
    What is asked while `counts()` is False is left out.
    """
    asked: dict[int, bool] = {}

    def read(module: nn.Module) -> bool:
        if "training" not in module.__dict__:
            raise AttributeError("training")
        mode: bool = module.__dict__["training"]
        if counts():
            asked[id(module)] = mode
        return mode

    def write(module: nn.Module, mode: bool) -> None:
        module.__dict__["training"] = mode

    nn.Module.training = property(read, write)  # type: ignore[assignment]
    try:
        yield asked
    finally:
        del nn.Module.training
