"""Where a module stands in the tree: by index in a container, and by what it is like elsewhere.

The names of attributes say nothing here: they serve only to find a module again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

#: The step to a child of a container, whatever its index.
ITEM = "*"

Steps = tuple[Hashable, ...]


def class_of(module: nn.Module) -> type:
    """A module's class; a parametrized one (weight norm) has a class of its own otherwise."""
    return type_before_parametrizations(module)


def parent_of(path: str) -> str:
    """The path of the module that holds a module; of the network itself the empty one."""
    return path.rpartition(".")[0]


def inside(path: str, outer: str) -> bool:
    """Whether a module path lies strictly below another."""
    return path != outer and (outer == "" or path.startswith(outer + "."))


class Paths:
    """Some module paths in their order, and which of them lie around another path or below it.

    As quick for thousands of paths as for a few.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._order = {path: i for i, path in enumerate(dict.fromkeys(paths))}
        self._below: dict[str, list[str]] = {}
        for path in self._order:
            for above in _above(path):
                self._below.setdefault(above, []).append(path)

    def around(self, path: str) -> list[str]:
        """Those that a path lies strictly below."""
        return sorted(filter(self._order.__contains__, _above(path)), key=self._order.__getitem__)

    def below(self, path: str) -> list[str]:
        """Those that lie strictly below a path."""
        return self._below.get(path, [])

    def related(self, path: str) -> bool:
        """Whether a path is one of them, or lies below or above one."""
        return path in self._order or path in self._below or bool(self.around(path))


def _above(path: str) -> list[str]:
    """The paths of the modules that hold the one at a path, the network's own first."""
    return ["", *(path[:i] for i, c in enumerate(path) if c == ".")] if path else []


def outermost(paths: Iterable[str]) -> list[str]:
    """Those that lie below no other."""
    listed = list(paths)
    known = Paths(listed)
    return [path for path in listed if not known.around(path)]


def likeness(module: nn.Module) -> Hashable:
    """What makes siblings alike: their class, and of a container the classes that it holds."""
    held = frozenset(map(class_of, module.children())) if isinstance(module, CONTAINERS) else None
    return class_of(module), held


class Places:
    """The place of each module of a network: a step for every level from the root down.

    A child of a container stands at any index: `stages.2.blocks.10` is (…, *, …, *). Another child
    stands where its like siblings stand, `layer1` to `layer4` say; if it has none, its step is its
    class and how many siblings of that class follow: `blocks` behind an optional `downsample`.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._known: dict[str, tuple[Steps, Steps, int]] = {"": ((), (), 0)}
        self._children: dict[str, dict[str, tuple[Hashable, int, bool]]] = {}

    def place(self, path: str) -> Steps:
        """The steps to a module; the likes of it elsewhere have the same."""
        return self._find(path)[0]

    def slot(self, path: str) -> Steps:
        """The steps to a module where each attribute is told from its siblings by its order."""
        return self._find(path)[1]

    def repeats(self, path: str) -> int:
        """How many steps of its place lead to one of several: two for `layer1.0`."""
        return self._find(path)[2]

    def _find(self, path: str) -> tuple[Steps, Steps, int]:
        if path not in self._known:
            above = parent_of(path)
            place, slot, repeats = self._find(above)
            if isinstance(self._modules[above], CONTAINERS):
                self._known[path] = (*place, ITEM), (*slot, ITEM), repeats + 1
            else:
                step, i, several = self._siblings(above)[path[len(above) :].lstrip(".")]
                self._known[path] = (*place, step), (*slot, i), repeats + several
        return self._known[path]

    def _siblings(self, above: str) -> dict[str, tuple[Hashable, int, bool]]:
        """For each child of a module its step, its index, and whether it has like siblings."""
        if above not in self._children:
            children = {n: m for n, m in self._modules[above]._modules.items() if m is not None}
            count = Counter(map(likeness, children.values()))
            behind: Counter[type] = Counter(map(class_of, children.values()))
            found: dict[str, tuple[Hashable, int, bool]] = {}
            for i, (name, module) in enumerate(children.items()):
                behind[class_of(module)] -= 1
                several = count[likeness(module)] > 1
                alone = class_of(module), behind[class_of(module)]
                found[name] = likeness(module) if several else alone, i, several
            self._children[above] = found
        return self._children[above]
