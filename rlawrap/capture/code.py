"""The Python modules that a network's code lies in, and what in them needs care while recording."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlawrap.capture.bound import bound_methods
from rlawrap.capture.caches import caches_in
from rlawrap.capture.leaves import library_functions

#: What `functools.cache` and `lru_cache` make.
CACHED: Any = functools._lru_cache_wrapper
_NOT_THEIRS = frozenset(("torch", "builtins", "numpy", "functools", "collections"))


@dataclass(frozen=True)
class Code:
    """Names in a Python module or a class: of cached functions, and of those kept whole."""

    owner: Any
    cached: dict[str, Any]
    whole: dict[str, Callable[..., Any]]
    #: What the module `math` is called.
    maths: list[str]
    #: What NumPy is called.
    numpys: list[str]
    #: Lists and dicts that may keep tensors from one call to the next.
    caches: list[Any]


def packages_of(root: nn.Module) -> set[str]:
    """The packages that a network's classes and methods come from."""
    names = {cls.__module__ for module in root.modules() for cls in type(module).__mro__}
    names |= {f.__module__ for module in root.modules() for f in bound_methods(module).values()}
    return {name.partition(".")[0] for name in names} - _NOT_THEIRS


def code_of(root: nn.Module) -> tuple[Code, ...]:
    """The loaded Python modules of the packages that a network's classes and methods come from."""
    # einops is called by its module's name (`einops.rearrange`), from wherever.
    packages = packages_of(root) | {"einops"}
    whole = {id(f) for f in library_functions()}
    modules = [
        _code(module, whole)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in packages
        and not name.startswith("rlawrap.capture")
        and hasattr(module, "__dict__")
    ]
    classes = {cls for module in root.modules() for cls in type(module).__mro__}
    methods = [_code(c, set()) for c in classes if c.__module__.partition(".")[0] in packages]
    return (*modules, *(code for code in methods if code.cached or code.caches))


def _code(owner: Any, whole: set[int]) -> Code:
    code = Code(owner, {}, {}, [], [], caches_in(owner))
    numpy = sys.modules.get("numpy", code)
    scripted = torch.jit.ScriptFunction
    for name, value in list(vars(owner).items()):
        kind = type(value)
        if kind is CACHED:
            code.cached[name] = value
        elif value is math:
            code.maths.append(name)
        elif value is numpy:
            code.numpys.append(name)
        elif kind is scripted or id(value) in whole:
            code.whole[name] = value
    return code
