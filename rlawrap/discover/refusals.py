"""Why a network has no block, and which part of it has some: the message of the refusal."""

from __future__ import annotations

from torch import nn

from rlawrap.capture.probes import first_input_channels
from rlawrap.discover.found import found_blocks
from rlawrap.discover.rules import decide
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table
from rlawrap.errors import RLAError, spelled
from rlawrap.flow.traced import trace_model
from rlawrap.flow.vocabulary import is_convolution

#: So many modules are tried on their own; each is recorded anew.
TRIES = 6


def nothing_found(survey: Survey, table: Table) -> str:
    """Why there is no block, and what to do."""
    name = type(survey.flow.trace.root).__name__
    tokens = any(v.reason is Reason.SEQUENCE for v in table.verdicts.values())
    part = "" if tokens else _part_with_blocks(survey)
    if part:
        advice = (
            f"Rewrite the part that has some: {spelled(part)} = rlawrap.apply({spelled(part)})."
        )
    else:
        advice = (
            "Name them with blocks= (a class, paths or a glob), or write a Plan and pass plan=."
        )
    return f"no blocks found in {name}: {_why(survey, table)}. {advice}"


def _why(survey: Survey, table: Table) -> str:
    """What the network has, or lacks."""
    flow = survey.flow
    sequences = [p for p, v in table.verdicts.items() if v.reason is Reason.SEQUENCE]
    if sequences:
        return (
            f"its residual modules ({', '.join(sequences[:3])}, …) work on sequences of tokens, "
            "not on images"
        )
    dims = first_input_channels(flow.trace.root)[1]
    if not any(map(flow.image_conv, flow.nodes)):
        if dims != len(flow.shapes.inputs[0]) - 2:
            return (
                f"its convolutions work on {dims} axes and its input has "
                f"{len(flow.shapes.inputs[0]) - 2} of them"
            )
        return "no convolution of images lies on the way to its output"
    if survey.joins:
        return "what it adds and concatenates belongs to no module that repeats or returns an image"
    tensors = [n for n in flow.nodes if n in flow.data]
    if any(flow.ops.add_operands(n) or flow.ops.cat_operands(n) for n in tensors):
        return (
            f"what it adds and concatenates are no images of {flow.rank} axes and several pixels "
            "on the way to its output"
        )
    return "no residual adds, no concatenations and no repeated convolving modules of images"


def _part_with_blocks(survey: Survey) -> str:
    """The outermost module below the root that has blocks of its own, or none."""
    modules = [
        (path, module)
        for path, module in survey.modules.items()
        if path
        and not isinstance(module, (nn.ModuleList, nn.ModuleDict))  # nothing calls these
        and sum(map(is_convolution, module.modules())) > 2
    ]
    for path, module in sorted(modules, key=lambda m: m[0].count("."))[:TRIES]:
        try:
            own = Survey(trace_model(module).flow)
        except RLAError:
            continue
        if len(found_blocks(own, decide(own))) > 1:  # with one alone, nothing reads h
            return path
    return ""
