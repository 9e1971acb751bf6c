"""Why a network has no blocks, or none that read h, and the call to make instead, which was tried.

A call that a message tells to make stands in backquotes: a statement, or arguments to add to the
call that was refused. One that would be refused in its turn is not told.
"""

from __future__ import annotations

from typing import Any

from rlawrap.capture.probes import kernel_read_first
from rlawrap.discover.blocks import chosen_blocks
from rlawrap.discover.chain import Chain
from rlawrap.discover.found import Found, found_blocks
from rlawrap.discover.parts import part_advice
from rlawrap.discover.places import outermost
from rlawrap.discover.rules import decide
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table
from rlawrap.errors import few

#: A choice of blocks that is longer is told as a function.
LISTED = 8


def nothing_found(survey: Survey, table: Table) -> str:
    """Why there is no block, and what to do."""
    name = type(survey.flow.trace.root).__name__
    tokens = any(v.reason is Reason.SEQUENCE for v in table.verdicts.values())
    advice = "" if tokens else part_advice(survey.flow.trace.root) or _choice(survey)
    return f"no blocks found in {name}: {_why(survey, table)}.{advice}"


def nothing_chosen(survey: Survey, blocks: Any) -> str:
    """The modules that `blocks=` names are no blocks."""
    name = type(survey.flow.trace.root).__name__
    return (
        f"blocks={_shown(blocks)} names modules of {name} of which none returns an image on the "
        f"way to the output.{_found_without(survey) or _choice(survey)}"
    )


def nothing_reads(survey: Survey, chain: Chain, blocks: Any) -> str:
    """There are blocks, and h would come into none of them."""
    paths = few([w.found.path or "(network)" for w in chain.wired])
    advice = "" if blocks is None else _found_without(survey)
    advice = advice or part_advice(survey.flow.trace.root) or _choice(survey)
    return (
        f"nothing reads h: the blocks are {paths}; h enters none that another precedes, and no "
        f"classifier follows.{advice}"
    )


def _shown(blocks: Any) -> str:
    return getattr(blocks, "__name__", None) or repr(blocks)


def _found_without(survey: Survey) -> str:
    """That the blocks are found without `blocks=`, if they are."""
    found = found_blocks(survey, decide(survey))
    if not _reads(survey, found):
        return ""
    paths = few([f.path or "(network)" for f in found])
    return f" With `blocks=None` the blocks found are {paths}."


def _reads(survey: Survey, found: list[Found]) -> bool:
    return bool(found) and Chain.of(survey.flow, found).read


def _choice(survey: Survey) -> str:
    """Blocks to choose by hand: the convolutions, or the modules that hold them.

    Two at least: of one alone the classifier would have to read h, which may not be able to.
    """
    flow = survey.flow
    layers = [
        path for node, (path, _) in flow.trace.leaf_frames.items() if flow.image_conv(node) and path
    ]
    modules = [
        c.name
        for c in survey.candidates.values()
        if c.region is None and c.evidence.image and not c.evidence.container
    ]
    for paths in (list(dict.fromkeys(layers)), outermost(dict.fromkeys(modules))):
        if len(paths) > 1 and _reads(survey, chosen_blocks(survey, paths)):
            return f" Name them, for instance `blocks={_written(survey, paths)}`."
    return ""


def _written(survey: Survey, paths: list[str]) -> str:
    """A choice as a user may write it: the list of paths, or what they have in common."""
    if len(paths) > LISTED:
        classes = {survey.class_of(p).__name__ for p in paths}
        others = {p for p in survey.modules if survey.class_of(p).__name__ in classes}
        if len(classes) == 1 and others == set(paths):
            return f"lambda path, module: type(module).__name__ == {classes.pop()!r}"
    return repr(paths)


def _why(survey: Survey, table: Table) -> str:
    """What the network has, or lacks."""
    flow = survey.flow
    sequences = [p for p, v in table.verdicts.items() if v.reason is Reason.SEQUENCE]
    if sequences:
        return (
            f"its residual modules ({few(sequences, 3)}) work on sequences of tokens, not on images"
        )
    if not any(map(flow.image_conv, flow.nodes)):
        kernel, axes = kernel_read_first(flow.trace.root), len(flow.shapes.inputs[0]) - 2
        if kernel is not None and kernel[1] != axes:
            return f"its convolutions work on {kernel[1]} axes and its input has {axes} of them"
        convs = [flow.ops.conv(n) for n in flow.nodes if n in flow.data and flow.alive(n)]
        if any(conv.transposed for conv in convs if conv is not None):
            return "its convolutions are transposed ones, and h enters none of these"
        return "no convolution of images lies on the way to its output"
    if survey.joins:
        return "what it adds and concatenates belongs to no module that repeats or returns an image"
    tensors = [n for n in flow.nodes if n in flow.data]
    if any(flow.ops.add_operands(n) or flow.ops.cat_operands(n) for n in tensors):
        return (
            f"what it adds and concatenates are no images of {flow.rank} axes and several pixels "
            "on the way to its output"
        )
    nothing_joins = "it adds and concatenates nothing, and "
    if survey.layers:
        return nothing_joins + "none of its layers is like another"
    return nothing_joins + "no activation follows its convolutions, which would make them layers"
