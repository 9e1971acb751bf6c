"""Chosen blocks as sets of nodes: one for each call of a module, with its joins and its output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx

from rlawrap.capture.trace import Frame
from rlawrap.discover.candidates import Candidate, Kind
from rlawrap.discover.claims import claimed
from rlawrap.discover.joins import Join
from rlawrap.discover.steps import extended
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
    claims = claimed(survey, table)
    found: list[Found] = []
    for name in table.blocks:
        candidate = survey[name]
        joins = claims.get(name, [])
        if table.verdicts[name].reason not in (Reason.JOINS, Reason.PARTS_JOIN):
            joins = [join for join in joins if not join.folds]  # no residual: one convolution
        if candidate.region is not None:
            found.append(_of_region(candidate))
        else:
            found += calls_of(survey, name, joins)
    return in_order(survey, found)


def in_order(survey: Survey, found: list[Found]) -> list[Found]:
    """Blocks as they run: by where their outputs stand."""
    return sorted(found, key=lambda f: survey.flow.position[f.output])


def calls_of(survey: Survey, path: str, joins: list[Join]) -> Iterator[Found]:
    """One block for every call of a module that returns an image on the way to the output.

    Each has those of the `joins` that its call made.
    """
    flow = survey.flow
    label = survey.class_of(path).__name__
    for frame, call in flow.trace.calls.items():
        if frame[0] != path:
            continue
        nodes = [n for n in survey.ran[frame] if n in flow.data]
        output = survey.result(tensors_of(call.output))
        if output is not None:
            inner = set(nodes)
            made = tuple(join for join in joins if join.node in inner)
            yield Found(path, label, frame, tuple(nodes), output, made)
    for node, frame in flow.trace.leaf_frames.items():
        if frame[0] == path and survey.result([node]) is not None:
            layer = flow.ops.conv(node) is not None
            nodes = extended(flow, node) if layer else [node]
            yield Found(path, label, frame, tuple(nodes), nodes[-1], whole=not layer)


def _of_region(candidate: Candidate) -> Found:
    region = candidate.region
    assert region is not None
    path = candidate.name if candidate.kind is Kind.STEP else candidate.path or candidate.name
    return Found(path, candidate.label, region.frame, region.nodes, region.output, region.joins)
