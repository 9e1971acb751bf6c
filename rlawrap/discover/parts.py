"""The parts of a network that can be rewritten alone, where the network as a whole cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from rlawrap.discover.chain import Chain
from rlawrap.discover.found import Found, found_blocks
from rlawrap.discover.rules import decide
from rlawrap.discover.survey import Survey
from rlawrap.errors import RLAError
from rlawrap.flow.traced import Traced, trace_model
from rlawrap.flow.vocabulary import is_convolution

#: So many modules are tried on their own; each is recorded anew.
TRIES = 8
#: A part has at least so many convolutions,
FEWEST = 3
#: and at least this share of those of the largest one that is told.
SHARE = 0.5


def part_advice(root: nn.Module) -> str:
    """The call that rewrites the largest parts with blocks that read h, if there are any."""
    parts = rewritable_parts(root)
    if not parts:
        return ""
    what, at = ("part that has", parts[0]) if len(parts) == 1 else ("parts that have", parts)
    return f" Rewrite the {what} blocks: `rlawrap.apply(model, at={at!r})`."


def rewritable_parts(root: nn.Module) -> list[str]:
    """Paths of the largest modules below the root that can be rewritten by themselves.

    The largest, by their convolutions, are tried first, and none inside of one that was found.
    """
    sizes = {
        path: sum(map(is_convolution, module.modules()))
        for path, module in root.named_modules()
        if path and type(module).forward is not nn.Module.forward  # nothing calls those
    }
    found: dict[str, str] = {}
    tries = 0
    for path in sorted(sizes, key=lambda path: (-sizes[path], path.count("."))):
        largest = sizes[next(iter(found))] if found else 0
        if sizes[path] < max(FEWEST, SHARE * largest) or tries == TRIES:
            break
        if any(path.startswith(f"{other}.") for other in found):
            continue
        tries += 1
        part = _part_at(root, path)
        if part is not None:
            found[path] = part
    return list(found.values())


def _part_at(root: nn.Module, path: str) -> str | None:
    """The path, or one further in, if the module there has blocks that read h.

    Of a module that returns several maps the one inside is told that has all of its blocks: h
    would join what reads one of the maps (a pyramid's lateral convolution) and none of the others.
    """
    known = _blocks_of(root.get_submodule(path))
    if known is None:
        return None
    survey, found = known
    inner = _common(found)
    if len(survey.flow.outputs) > 1 and (inner, 0) in survey.flow.trace.calls and inner:
        within = _blocks_of(root.get_submodule(f"{path}.{inner}"))
        if within is not None and len(within[1]) == len(found):
            return f"{path}.{inner}"
    return path


def _blocks_of(module: nn.Module) -> tuple[Survey, list[Found]] | None:
    """What a module by itself is and the blocks in it, if there are some that read h."""
    try:
        survey = Survey(trace_model(module).flow)
    except RLAError:
        return None
    found = found_blocks(survey, decide(survey))
    return (survey, found) if found and Chain.of(survey.flow, found).read else None


def _common(found: list[Found]) -> str:
    """The path of the innermost module around all blocks, empty where that is the network."""
    *around, _ = found[0].path.split(".")
    while around and not all(f.path.startswith(".".join((*around, ""))) for f in found):
        around.pop()
    return ".".join(around)


def trace_whole(
    model: nn.Module,
    *,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
    call: str = "inspect(model)",
) -> Traced:
    """`trace_model`, whose refusals name the part of the network that can be rewritten alone."""
    try:
        return trace_model(model, leaf_modules=leaf_modules, example_input=example_input, call=call)
    except RLAError as error:
        if error.whole is None:
            raise
        advice = part_advice(model)
        if not advice:
            raise
        raise type(error)(f"{error.whole}{advice}") from error.__cause__
