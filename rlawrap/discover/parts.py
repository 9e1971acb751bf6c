"""The part of a network that has blocks of its own, where the network as a whole has none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from rlawrap.discover.chain import Chain
from rlawrap.discover.found import found_blocks
from rlawrap.discover.rules import decide
from rlawrap.discover.survey import Survey
from rlawrap.errors import RLAError, spelled
from rlawrap.flow.traced import Traced, trace_model
from rlawrap.flow.vocabulary import is_convolution

#: So many modules are tried on their own; each is recorded anew.
TRIES = 6


def part_advice(root: nn.Module) -> str:
    """The call that rewrites the outermost part below the root with blocks that read h, if any."""
    paths = [
        (path.count("."), -sum(map(is_convolution, module.modules())), path)
        for path, module in root.named_modules()
        if path and not isinstance(module, (nn.ModuleList, nn.ModuleDict))  # nothing calls these
    ]
    for _, convolutions, path in sorted(paths)[:TRIES]:
        if convolutions < -2 and _has_blocks(root.get_submodule(path)):
            call = spelled(path, root)
            return f" Rewrite the part that has blocks: `{call} = rlawrap.apply({call})`."
    return ""


def _has_blocks(module: nn.Module) -> bool:
    """Whether a module by itself has blocks that read h."""
    try:
        survey = Survey(trace_model(module).flow)
    except RLAError:
        return False
    found = found_blocks(survey, decide(survey))
    return bool(found) and Chain.of(survey.flow, found).read


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
