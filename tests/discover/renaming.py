"""A network under other names: the same modules, of the same classes, in the same order."""

from __future__ import annotations

import random
import re
from typing import Any

from torch import nn

from rlawrap import Plan
from rlawrap.copying import deep_copy

#: Beginnings that other code might take for a hint, and plain numbers.
_STEMS = ("layer", "block", "conv", "downsample", "stem", "head", "x", "norm_", "")


def renamed(model: nn.Module, seed: int) -> tuple[nn.Module, dict[str, str]]:
    """A copy whose children have other names, and the new path of each module by its old one.

    Every attribute that holds a module is renamed, in each module by another bijection, and so are
    the children of plain Sequentials. The old names still answer, as plain attributes, so that
    `forward` runs; `named_modules` and whoever reads paths meets the new ones alone.
    """
    rng = random.Random(seed)
    twin = deep_copy(model)
    names = {id(module): _new_names(module, rng) for module in twin.modules()}
    paths = {"": ""}
    _walk(twin, "", "", names, paths)
    for module in list(twin.modules()):
        children = dict(module._modules)
        new = names[id(module)]
        module._modules.clear()
        for old, child in children.items():
            module._modules[new[old]] = child
            if new[old] != old:
                module.__dict__[old] = child
    return twin, paths


def _new_names(module: nn.Module, rng: random.Random) -> dict[str, str]:
    old = list(module._modules)
    fixed = isinstance(module, (nn.ModuleList, nn.ModuleDict)) or (
        isinstance(module, nn.Sequential) and type(module).forward is not nn.Sequential.forward
    )
    if fixed:  # they are read by number or key
        return {name: name for name in old}
    new: list[str] = []
    while len(new) < len(old):
        name = f"{rng.choice(_STEMS)}{rng.randrange(1000)}"
        if name not in new and name not in old and not hasattr(module, name):
            new.append(name)
    return dict(zip(old, new, strict=True))


def _walk(
    module: nn.Module, old: str, new: str, names: dict[int, dict[str, str]], paths: dict[str, str]
) -> None:
    for name, child in module._modules.items():
        if child is not None:
            was = f"{old}.{name}".lstrip(".")
            now = f"{new}.{names[id(module)][name]}".lstrip(".")
            paths[was] = now
            _walk(child, was, now, names, paths)


def translated(plan: Plan, paths: dict[str, str]) -> dict[str, Any]:
    """A plan as data, in the names of the copy."""

    def rename(reference: str | None) -> str | None:
        if reference is None:
            return None
        path, rest = re.fullmatch(r"([^:#\[]*)(.*)", reference).groups()  # type: ignore[union-attr]
        return paths[path] + rest

    def rename_all(references: tuple[str, ...]) -> list[str | None]:
        return [rename(reference) for reference in references]

    return {
        "stages": [
            [
                {
                    "path": rename(b.path),
                    "class": b.class_name,
                    "entries": rename_all(b.entries),
                    "input": rename(b.input),
                    "branch": rename(b.branch),
                    "shortcut": rename(b.shortcut),
                    "output": rename(b.output),
                    "after": b.after,
                    "note": b.note,
                }
                for b in stage.blocks
            ]
            for stage in plan.stages
        ],
        "head": rename_all(plan.head),
        "left out": {rename(path): reason for path, reason in plan.left_out},
    }
