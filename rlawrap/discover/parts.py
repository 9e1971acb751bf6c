"""The parts of a network that can be rewritten alone, where the network as a whole cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from torch import nn

from rlawrap.discover.chain import Chain
from rlawrap.discover.found import Found, found_blocks
from rlawrap.discover.part_inputs import described_input, part_inputs
from rlawrap.discover.rules import decide
from rlawrap.discover.survey import Survey
from rlawrap.errors import RLAError
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.liveness import Liveness
from rlawrap.flow.traced import Traced, trace_model
from rlawrap.flow.vocabulary import is_convolution

#: So many modules are tried on their own; each is recorded anew.
TRIES = 8
#: A part has at least so many convolutions,
FEWEST = 3
#: and at least this share of those of the largest one that is told.
SHARE = 0.5


@dataclass(frozen=True)
class Part:
    """A part that can be rewritten: by itself, or with an `example_input` like the one it gets."""

    path: str
    needs: Any = None


#: Tells what parts get, by path, where it is known.
Inputs = Callable[[], Mapping[str, Any]]


def part_advice(root: nn.Module, inputs: Inputs = dict) -> str:
    """The call that rewrites the largest parts with blocks that read h, if there are any.

    inputs: is asked for what parts get where one cannot be guessed.
    """
    parts = rewritable_parts(root, inputs)
    alone = [part.path for part in parts if part.needs is None]
    if alone:
        what, at = ("part that has", alone[0]) if len(alone) == 1 else ("parts that have", alone)
        return f" Rewrite the {what} blocks: `rlawrap.apply(model, at={at!r})`."
    if not parts:
        return ""
    which, part = "the" if len(parts) == 1 else "a", parts[0]
    return (
        f" Rewrite {which} part that has blocks: `rlawrap.apply(model, at={part.path!r}, "
        f"example_input=y)`, where y is what that part gets, here {described_input(part.needs)}."
    )


def _sizes(root: nn.Module) -> dict[str, int]:
    """The convolutions in each module below the root that is large enough to be a part."""
    sizes = {
        path: sum(map(is_convolution, module.modules()))
        for path, module in root.named_modules()
        if path and type(module).forward is not nn.Module.forward  # nothing calls those
    }
    return {path: size for path, size in sizes.items() if size >= FEWEST}


def rewritable_parts(root: nn.Module, inputs: Inputs = dict) -> list[Part]:
    """The largest modules below the root that can be rewritten by themselves.

    The largest, by their convolutions, are tried first, and none inside of one that was found.
    """
    sizes = _sizes(root)
    found: dict[str, Part] = {}
    tries = 0
    for path in sorted(sizes, key=lambda path: (-sizes[path], path.count("."))):
        largest = sizes[next(iter(found))] if found else 0
        if sizes[path] < SHARE * largest or tries == TRIES:
            break
        if any(path.startswith(f"{other}.") for other in found):
            continue
        tries += 1
        part = _part_at(root, path, inputs)
        if part is not None:
            found[path] = part
    return list(found.values())


def _part_at(root: nn.Module, path: str, inputs: Inputs) -> Part | None:
    """The part at a path, or one further in, if the module there has blocks that read h."""
    part = _part_with(root, path, {})
    if part is None and path in inputs():
        part = _part_with(root, path, inputs())
    return part


def _part_with(root: nn.Module, path: str, inputs: Mapping[str, Any]) -> Part | None:
    """The part at a path with what it gets; without an input with what is guessed.

    Of a module that returns several maps the one inside is told that has all of its blocks: h
    would join what reads one of the maps (a pyramid's lateral convolution) and none of the others.
    """
    known = _blocks_of(root.get_submodule(path), inputs.get(path))
    if known is None:
        return None
    survey, found = known
    inner = _common(found)
    if len(survey.flow.outputs) > 1 and (inner, 0) in survey.flow.trace.calls and inner:
        within = f"{path}.{inner}"
        blocks = _blocks_of(root.get_submodule(within), inputs.get(within))
        if blocks is not None and len(blocks[1]) == len(found):
            return Part(within, inputs.get(within))
    return Part(path, inputs.get(path))


def _blocks_of(module: nn.Module, needs: Any) -> tuple[Survey, list[Found]] | None:
    """What a module by itself is and the blocks in it, if there are some that read h.

    A recording of one size is one of the size that it gets, and no guess.
    """
    try:
        traced = trace_model(module, example_input=needs)
        survey = Survey(traced.flow)
    except RLAError:
        return None
    if needs is None and traced.fixed:
        return None
    found = found_blocks(survey, decide(survey))
    return (survey, found) if found and _learns(survey.flow, Chain.of(survey.flow, found)) else None


def _learns(flow: Flow, chain: Chain) -> bool:
    """Whether something reads h, and what h adds there reaches what is returned."""
    alive = Liveness(flow).returned()
    return any(way in alive for way in chain.ways)


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
        inputs = cache(partial(part_inputs, model, example_input, _sizes(model)))
        advice = part_advice(model, inputs)
        if not advice:
            raise
        raise type(error)(f"{error.whole}{advice}") from error.__cause__
