"""Rewritten networks inside of a model, found by path."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from rlawrap.design.names import ROOT
from rlawrap.splice.model import RLAModel


def rewritten_in(model: nn.Module) -> dict[str, RLAModel]:
    """The rewritten networks in a model, each once, by its first path; a model itself by "".

    >>> import rlawrap, torchvision
    >>> tower = rlawrap.apply(torchvision.models.resnet18(weights=None), k=4)
    >>> list(rewritten_in(nn.ModuleDict({"a": tower, "b": tower, "fc": nn.Linear(2, 2)})))
    ['a']
    """
    return dict(_walk(model, "", set()))


def _walk(module: nn.Module, path: str, seen: set[int]) -> Iterator[tuple[str, RLAModel]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    if isinstance(module, RLAModel):
        yield path, module
        return
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{path}.{name}" if path else name, seen)


def added_in(model: nn.Module) -> Callable[[str], bool]:
    """Whether a module path or a key of a state dict of `model` is of what the rewrite added.

    >>> import rlawrap, torchvision
    >>> tower = rlawrap.apply(torchvision.models.resnet18(weights=None), k=4)
    >>> is_added = added_in(nn.ModuleDict({"a": tower}))
    >>> is_added("a.rla.cell.0.conv.weight"), is_added("a.fc.weight"), is_added("rla.x")
    (True, False, False)
    """
    roots = [
        f"{path}.{ROOT}" if path else ROOT
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, RLAModel)
    ]
    below = tuple(f"{root}." for root in roots)
    return lambda key: key in roots or key.startswith(below)
