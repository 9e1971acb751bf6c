"""`blocks=`: the modules that a user names are the blocks."""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from rlawrap.discover.found import Found, calls_of, in_order, joins_of_blocks
from rlawrap.discover.places import outermost
from rlawrap.discover.rules import decide
from rlawrap.discover.survey import Survey
from rlawrap.errors import PlanError

BlockChoice = type | str | Sequence[Any] | Callable[[str, nn.Module], bool]


def chosen_paths(survey: Survey, choice: BlockChoice) -> list[str]:
    """The modules that `blocks=` names. Raises `PlanError` for a part of it that names none."""
    called = _called(survey)
    parts = list(choice) if isinstance(choice, (list, tuple, set, frozenset)) else [choice]
    hit: list[str] = []
    for part in parts:
        matches = _matcher(part)
        paths = [p for p in called if matches(p, survey.modules[p])]
        if not paths:
            raise PlanError(_no_match(survey, part, called))
        hit += paths
    if not hit:
        raise PlanError(_no_match(survey, choice, called))
    return outermost(dict.fromkeys(hit))


def chosen_blocks(survey: Survey, paths: list[str]) -> list[Found]:
    """The calls of the modules that a user chose, in the order they run."""
    known = joins_of_blocks(survey, decide(survey))
    frames = survey.flow.trace.leaf_frames
    layers = {node for node, (path, _) in frames.items() if path in paths}
    found: list[Found] = []
    for path in paths:
        own = [join for join in survey.joins if join.owner == path]
        found += calls_of(survey, path, known.get(path, own), layers)
    return in_order(survey, found)


def _called(survey: Survey) -> list[str]:
    """Every module that runs on the way to the output, elementary layers too, by its calls."""
    flow = survey.flow
    layers = [
        path
        for node, (path, _) in flow.trace.leaf_frames.items()
        if node in flow.data and flow.alive(node)
    ]
    modules = [c.name for c in survey.candidates.values() if c.region is None]
    return list(dict.fromkeys((*modules, *layers)))


def _matcher(choice: BlockChoice) -> Callable[[str, nn.Module], bool]:
    if isinstance(choice, type):
        return lambda path, module: isinstance(module, choice)
    if isinstance(choice, str):
        return lambda path, module: fnmatch.fnmatchcase(path, choice)
    if callable(choice):

        def asked(path: str, module: nn.Module) -> bool:
            try:
                return bool(choice(path, module))
            except Exception as error:
                raise PlanError(
                    f"blocks=: the function failed for ({path!r}, {type(module).__name__}): "
                    f"{type(error).__name__}: {error}"
                ) from error

        return asked
    raise PlanError(
        f"blocks={choice!r}: give a class, a tuple of classes, a list of module paths, a glob "
        "such as 'layer*.*', or a function of (path, module)."
    )


def _no_match(survey: Survey, choice: BlockChoice, called: list[str]) -> str:
    text = getattr(choice, "__name__", None) or repr(choice)
    near = difflib.get_close_matches(choice, called, n=3) if isinstance(choice, str) else []
    classes = Counter(survey.class_of(p).__name__ for p in called)
    repeated = [f"{name} ({n} calls)" for name, n in classes.most_common(6)]
    hint = f"Paths near it: {', '.join(near)}. " if near else ""
    return (
        f"blocks={text} matches no module that the network calls on the way to its output. "
        f"{hint}Classes it calls: {', '.join(repeated)}."
    )
