"""Chosen blocks as sets of nodes: one for each call of a module, with its joins and its output."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from torch import fx

from rlawrap.capture.trace import Frame
from rlawrap.discover.candidates import Candidate, Kind
from rlawrap.discover.claims import claimed
from rlawrap.discover.joins import Join
from rlawrap.discover.plain import layer_nodes
from rlawrap.discover.spine import residual_joins
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table
from rlawrap.flow.references import tensors_of


@dataclass(frozen=True, eq=False)
class Found:
    """One block: `joins` are those that it makes itself, in order."""

    path: str
    class_name: str
    #: The module call that it is; None for a step and for layers.
    frame: Frame | None
    nodes: tuple[fx.Node, ...]
    output: fx.Node
    joins: tuple[Join, ...] = ()
    #: A module that was not traced into, and is no layer that h could enter.
    whole: bool = False


def found_blocks(survey: Survey, table: Table) -> list[Found]:
    """The blocks of a table in the order they run, each with its joins."""
    joins = joins_of_blocks(survey, table)
    found: list[Found] = []
    for name in table.blocks:
        candidate = survey[name]
        if candidate.region is not None:
            found.append(_of_region(candidate))
        else:
            found += calls_of(survey, name, joins[name])
    return in_order(survey, found)


def joins_of_blocks(survey: Survey, table: Table) -> dict[str, list[Join]]:
    """The joins of each block of a table by name, none for those that others make.

    What is a block for its place or class alone and adds linear branches is one convolution and no
    residual block, unless others of its class are and no convolution follows the sum.
    """
    claims = claimed(survey, table)
    own = {n for n in table.blocks if table.verdicts[n].reason in (Reason.JOINS, Reason.PARTS_JOIN)}
    classes = {survey[name].cls for name in own if not survey[name].evidence.container}
    return {
        name: [
            join
            for join in claims.get(name, [])
            if not join.folds
            or name in own
            or (survey[name].cls in classes and not _convolved_behind(survey, name, join))
        ]
        for name in table.blocks
    }


def _convolved_behind(survey: Survey, name: str, join: Join) -> bool:
    """Whether a module convolves what a join makes: the sum is a part of its branch."""
    flow = survey.flow
    nodes = (node for frame, _ in survey.calls.get(name, ()) for node in survey.ran[frame])
    convs = (node for node in nodes if node in flow.data and flow.ops.conv(node) is not None)
    return any(node is not join.node and flow.derives(node, join.node) for node in convs)


def in_order(survey: Survey, found: list[Found]) -> list[Found]:
    """Blocks as they run: by where their outputs stand."""
    return sorted(found, key=lambda f: survey.flow.position[f.output])


def calls_of(
    survey: Survey, path: str, joins: list[Join], apart: Container[fx.Node] = ()
) -> Iterator[Found]:
    """One block for every call of a module that returns an image on the way to the output.

    Each has those of the `joins` that its call made; without any, those that make it residual. A
    convolution is a block with its norm and activation, up to the nodes that are to stand `apart`.
    """
    flow = survey.flow
    label = survey.class_of(path).__name__
    for frame, call in survey.calls.get(path, ()):
        nodes = [n for n in survey.ran[frame] if n in flow.data]
        output = survey.result(tensors_of(call.output))
        if output is not None:
            inner = set(nodes)
            made = tuple(join for join in joins if join.node in inner)
            if not made:
                made = residual_joins(flow, inner, output, survey.joins)
            yield Found(path, label, frame, tuple(nodes), output, made)
    for node, frame in survey.whole_calls.get(path, ()):
        if survey.result([node]) is None:
            continue
        if flow.ops.conv(node) is None:
            yield Found(path, label, frame, (node,), node, whole=True)
        else:
            layer = tuple(layer_nodes(flow, node, apart))
            name = f"{path}#{frame[1]}" if frame[1] else path
            yield Found(name, label, None, layer, layer[-1])


def _of_region(candidate: Candidate) -> Found:
    region = candidate.region
    assert region is not None
    path = candidate.name if candidate.kind is Kind.STEP else candidate.path or candidate.name
    return Found(path, candidate.label, region.frame, region.nodes, region.output, region.joins)
