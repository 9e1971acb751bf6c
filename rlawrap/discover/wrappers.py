"""Rule 2: generic wrappers such as `Residual(fn)`, which join for the block around them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable

from torch import nn

from rlawrap._torch import ConvNd
from rlawrap.discover.claims import claimed
from rlawrap.discover.places import parent_of
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table, Verdict, Votes


def wrappers_are_parts(survey: Survey, table: Table) -> Votes:
    """Rule 2, `wrapper`: `Residual(fn)` around unlike modules is a part of the block it lies in.

        Block ┬ Residual(Mixer)   x ──┬─ mixer ─(+)──┬─ mlp ─(+)──
              └ Residual(Mlp)         └─────────┘    └───────┘
              └──────────── one block, two wrappers ────────────┘

    Wrappers of the same class that stand alone, between stages, are transitions, if they are fewer.
    """
    votes: dict[str, Verdict] = {}
    by_class: dict[type, list[str]] = defaultdict(list)
    for path in claimed(survey, table):
        if survey[path].evidence.wraps is not None:
            by_class[survey[path].cls].append(path)
    for paths in by_class.values():
        targets = _targets(survey, paths)
        places = {survey.places.place(target) for target in targets.values()}
        alone = [
            path
            for path in paths
            if path not in targets and survey[path].evidence.place not in places
        ]
        votes.update({path: Verdict(Reason.WRAPPER, target) for path, target in targets.items()})
        if len(alone) < len(targets):
            votes.update({path: Verdict(Reason.STANDS_BETWEEN) for path in alone})
        for target in targets.values():
            votes[target] = Verdict(Reason.PARTS_JOIN)
    return votes


def _targets(survey: Survey, paths: list[str]) -> dict[str, str]:
    """For the wrappers of one class, the module that each is a part of, where there is one."""
    kinds = {path: survey[path].evidence.wraps for path in paths}
    differ = len({kind[0] for kind in kinds.values() if isinstance(kind, tuple)}) > 1
    parts: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        parts[survey.home(path)].append(path)
    count = Counter(map(survey.class_of, parts))
    stages = {survey.class_of(path) for path in _stages(parts, kinds)}
    mixed = [path for path in paths if _is_mixer(survey, parent_of(path), paths)]
    # A block beside a convolution, where most stand elsewhere, is one of those blocks.
    mixers = set(mixed) if 2 * len(mixed) > len(paths) else set()
    targets: dict[str, str] = {}
    for home, inner in parts.items():
        cls = survey.class_of(home)
        whole = cls not in stages and count[cls] > 1 and home in survey.candidates
        for path in inner:
            if whole and (differ or _only_child(survey, path, home)):
                targets[path] = home
            elif path in mixers:
                targets[path] = parent_of(path)
    return targets


def _stages(parts: dict[str, list[str]], kinds: dict[str, Hashable]) -> set[str]:
    """Modules that list like wrappers, or hold modules that hold wrappers: they are no blocks."""
    stages = {""}
    for home, inner in parts.items():
        alike = Counter((parent_of(p), kinds[p]) for p in inner if parent_of(p) != home)
        if any(n > 1 for n in alike.values()):
            stages.add(home)
        above = home
        while above:
            above = parent_of(above)
            stages.add(above)
    return stages


def _only_child(survey: Survey, path: str, parent: str) -> bool:
    """Whether everything that a module learns lies in one child."""
    below = path[len(parent) :].lstrip(".") + "."
    learned = survey.modules[parent].named_parameters()
    return parent_of(path) == parent and all(name.startswith(below) for name, _ in learned)


def _is_mixer(survey: Survey, parent: str, wrappers: list[str]) -> bool:
    """A Sequential of exactly one wrapper and a convolution, as in ConvMixer."""
    if parent not in survey.candidates or survey.class_of(parent) is not nn.Sequential:
        return False
    if sum(parent_of(path) == parent for path in wrappers) != 1:
        return False
    return any(isinstance(child, ConvNd) for child in survey.modules[parent].children())
