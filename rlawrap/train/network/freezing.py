"""What of a network does not train: parts by name, and the norms in them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from torch import nn

from rlawrap import _torch
from rlawrap.errors import ConfigError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (_torch.NormBase, nn.GroupNorm, nn.LayerNorm)


def first_convolution(model: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the first convolution. Raises `ConfigError` when there is none."""
    for name, module in model.named_modules():
        if isinstance(module, CONVOLUTIONS):
            return name, module
    raise ConfigError("the network has no convolution.")


def stem(model: nn.Module) -> list[str]:
    """Names of the first convolution and of the norm right after it, if one is there."""
    first, _ = first_convolution(model)
    # With a weight norm the convolution has modules inside.
    leaves = [
        (name, module)
        for name, module in model.named_modules()
        if name == first or not (any(module.children()) or name.startswith(f"{first}."))
    ]
    at = [name for name, _ in leaves].index(first)
    names = [first]
    if at + 1 < len(leaves) and isinstance(leaves[at + 1][1], _NORMS):
        names.append(leaves[at + 1][0])
    return names


def freeze(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Stop training the parameters under the named modules; returns the parameters' names.

    patterns: "stem", a module's or parameter's name ("layer1"), or a shell pattern ("layer[12]").
    Norms in which nothing is left to train keep their statistics: see `keep_frozen_norms`.
    Raises `ConfigError` for a pattern that fits nothing.
    """
    parameters = dict(model.named_parameters())
    frozen: list[str] = []
    for pattern in patterns:
        wanted = stem(model) if pattern == "stem" else [pattern]
        found = [
            name
            for name in parameters
            if any(fnmatch.fnmatchcase(part, w) for part in _prefixes(name) for w in wanted)
        ]
        if not found:
            tops = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f"freeze {pattern!r}: no parameter has such a name. The modules are: {tops}."
            )
        frozen += found
    for name in frozen:
        parameters[name].requires_grad_(False)
    return frozen


def keep_frozen_norms(model: nn.Module) -> None:
    """Set the norms that `freeze` froze to evaluation mode; call it after `model.train()`."""
    for module in model.modules():
        if isinstance(module, _NORMS):
            own = list(module.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own):
                module.eval()


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]
