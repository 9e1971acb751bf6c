"""Python modules that come in while a network is recorded, by an import inside of its forward."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

from torch import Tensor, nn

from rlawrap._torch import pytree
from rlawrap.capture.caches import caches_in
from rlawrap.capture.code import CACHED, packages_of
from rlawrap.capture.leaves import LIBRARIES

Recorded = TypeVar("Recorded")


def with_late_imports(network: nn.Module, run: Callable[[], Recorded]) -> Recorded:
    """What `run` gives, which makes a shadow of `network` and records it.

    A recording sees what is called in the Python modules that were there when it began, so it runs
    again where further ones came in.
    """
    while True:
        before = set(sys.modules)
        try:
            recorded = run()
        except Exception:
            if not _came_in(network, before):
                raise
        else:
            if not _came_in(network, before):
                return recorded


def _came_in(network: nn.Module, before: set[str]) -> bool:
    """Whether Python modules came in that a recording looks into; what they cached is dropped."""
    late = {name: module for name, module in list(sys.modules.items()) if name not in before}
    # einops and rlawrap load parts of their own while they run.
    looked_into = packages_of(network) - {"einops", "rlawrap"}
    theirs = {n for n in late if n in LIBRARIES or n.partition(".")[0] in looked_into}
    packages = {name.partition(".")[0] for name in theirs}
    for name, module in late.items():
        if name.partition(".")[0] in packages and isinstance(module, ModuleType):
            _forget(module)
    return bool(theirs)


def _forget(module: ModuleType) -> None:
    """Drop what the functions of a Python module cached: it is of the recording's sizes."""
    for value in list(vars(module).values()):
        if isinstance(value, CACHED):
            value.cache_clear()
    for cache in caches_in(module):
        tensors = [t for t in pytree.tree_leaves(cache) if isinstance(t, Tensor)]
        if isinstance(cache, dict) and any(t.is_meta for t in tensors):
            cache.clear()
