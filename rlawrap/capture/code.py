"""The Python modules that a network's code lies in, and what in them needs care while recording."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlawrap.capture.leaves import library_functions

_NOT_THEIRS = frozenset(("torch", "builtins", "numpy", "functools", "collections"))


@dataclass(frozen=True)
class Code:
    """One Python module's names: of cached functions, and of those that are kept whole."""

    space: dict[str, Any]
    cached: dict[str, Any]
    whole: dict[str, Callable[..., Any]]


def code_of(root: nn.Module) -> tuple[Code, ...]:
    """The loaded Python modules of the packages that the classes of a network come from."""
    names = {cls.__module__ for module in root.modules() for cls in type(module).__mro__}
    # einops is called by its module's name (`einops.rearrange`), from wherever.
    packages = {"einops", *(name.partition(".")[0] for name in names)} - _NOT_THEIRS
    whole = {id(f) for f in library_functions()}
    return tuple(
        _code(vars(module), whole)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in packages
        and not name.startswith("rlawrap.capture")
        and hasattr(module, "__dict__")
    )


def _code(space: dict[str, Any], whole: set[int]) -> Code:
    code = Code(space, {}, {})
    cached, scripted = functools._lru_cache_wrapper, torch.jit.ScriptFunction
    for name, value in list(space.items()):
        kind = type(value)
        if kind is cached:
            code.cached[name] = value
        elif kind is scripted or id(value) in whole:
            code.whole[name] = value
    return code
