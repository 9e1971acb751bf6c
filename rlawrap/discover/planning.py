"""Traced network -> Plan: blocks found or chosen, wired, grouped and described."""

from __future__ import annotations

from rlawrap.capture.probes import first_input_channels
from rlawrap.discover.blocks import BlockChoice, chosen_blocks, chosen_paths
from rlawrap.discover.describe import describe, find_head
from rlawrap.discover.explain import explanation
from rlawrap.discover.found import found_blocks
from rlawrap.discover.rules import decide
from rlawrap.discover.stages import StageChoice, group, link
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table, Verdict
from rlawrap.discover.wiring import Wired, wire
from rlawrap.errors import PlanError
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced
from rlawrap.plan import Plan, Stage


def make_plan(
    traced: Traced,
    *,
    blocks: BlockChoice | None = None,
    stages: StageChoice | None = None,
    explain: bool = False,
) -> Plan:
    """The plan of a traced network. Raises `PlanError` if no block is found."""
    flow = traced.flow
    survey = Survey(flow)
    if blocks is None:
        table = decide(survey)
        found = found_blocks(survey, table)
    else:
        paths = chosen_paths(survey, blocks)
        table = Table(dict.fromkeys(paths, Verdict(Reason.CHOSEN)))
        found = chosen_blocks(survey, paths)
    if explain:
        print(explanation(survey, table))
    if not found and blocks is not None:
        raise PlanError(
            f"blocks={blocks!r} names modules of {type(flow.trace.root).__name__} of which none "
            "returns an image on the way to the output."
        )
    if not found:
        raise PlanError(_nothing_found(flow, table))
    wired = [wire(flow, f) for f in found]
    refs = References(flow.trace)
    parents = link(flow, wired)
    described = [describe(flow, refs, w, parents[i]) for i, w in enumerate(wired)]
    built = tuple(
        Stage(index=s, blocks=tuple(described[i] for i in indices))
        for s, indices in enumerate(group(flow, wired, stages))
    )
    head = find_head(flow, wired)
    return Plan(
        model=type(flow.trace.root).__name__,
        input_shape=flow.shapes.inputs[0],
        stages=built,
        head=tuple(refs.name(n) for n in head),
        left_out=left_out(survey, table),
        notes=tuple(dict.fromkeys((*traced.notes, *_unread(wired, parents, bool(head))))),
    )


def left_out(survey: Survey, table: Table) -> tuple[tuple[str, str], ...]:
    """What the plan tells of candidates that are no blocks, in the order in which they run."""
    order = {name: i for i, name in enumerate(survey.candidates)}
    names = sorted(table.told, key=lambda name: order.get(name, len(order)))
    return tuple((name, str(table.verdicts[name])) for name in names)


def _unread(wired: list[Wired], parents: list[int | None], head: bool) -> list[str]:
    """The note on a plan in which nothing reads h."""
    if head or any(w.entries and p is not None for w, p in zip(wired, parents, strict=True)):
        return []
    return [
        "nothing reads h: it enters no block that another precedes, and no classifier follows; "
        "choose more blocks with blocks=, or write a Plan with a head"
    ]


def _nothing_found(flow: Flow, table: Table) -> str:
    """Why there is no block, and what to do."""
    name = type(flow.trace.root).__name__
    others = ""
    sequences = [p for p, v in table.verdicts.items() if v.reason is Reason.SEQUENCE]
    if sequences:
        others = (
            f"; its residual modules ({', '.join(sequences[:3])}, …) work on sequences of tokens, "
            "not on images"
        )
    dims = first_input_channels(flow.trace.root)[1]
    if dims != flow.rank - 2:
        others = (
            f": its convolutions work on {dims} axes and its input has {flow.rank - 2} of them. "
            "Rewrite the part that takes images alone, like model.backbone = "
            "rlawrap.apply(model.backbone)"
        )
    return (
        f"no blocks found in {name}: no residual adds, no concatenations, no repeated convolving "
        f"modules{others}. Name them with blocks= (a class, paths or a glob), or write a Plan and "
        "pass plan=."
    )
