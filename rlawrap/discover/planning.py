"""Traced network -> Plan: blocks found or chosen, wired, grouped and described."""

from __future__ import annotations

import warnings

from rlawrap.discover.blocks import BlockChoice, chosen_blocks, chosen_paths
from rlawrap.discover.both_modes import ALONE, of_both_modes, of_eval_mode
from rlawrap.discover.chain import Chain
from rlawrap.discover.describe import describe
from rlawrap.discover.explain import explanation
from rlawrap.discover.found import found_blocks
from rlawrap.discover.refusals import nothing_chosen, nothing_found, nothing_reads
from rlawrap.discover.rules import decide
from rlawrap.discover.stages import StageChoice, group
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table, Verdict
from rlawrap.discover.wiring import Wired
from rlawrap.errors import PlanError, RLAWarning
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced
from rlawrap.plan import Plan, Stage

#: From so many convolutions on a network should have more blocks than one.
MANY = 6


def make_plan(
    traced: Traced,
    *,
    blocks: BlockChoice | None = None,
    stages: StageChoice | None = None,
    explain: bool = False,
    with_h: bool = True,
) -> Plan:
    """The plan of a traced network; `with_h` if a hidden state is to run through its blocks.

    Raises `PlanError` if no block is found, or if nothing would read the hidden state.
    """
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
        raise PlanError(nothing_chosen(survey, blocks))
    if not found:
        raise PlanError(" ".join((nothing_found(survey, table), *(f"{w}." for w in traced.whole))))
    found, alone = of_both_modes(traced, found) if with_h else (found, [])
    chain = Chain.of(flow, found, of_eval_mode(traced))
    if with_h and not chain.read:
        raise PlanError(nothing_reads(survey, chain, blocks))
    wired, parents = chain.wired, chain.parents
    refs = References(flow.trace)
    described = [describe(flow, refs, w, parents[i]) for i, w in enumerate(wired)]
    built = tuple(
        Stage(index=s, blocks=tuple(described[i] for i in indices))
        for s, indices in enumerate(group(flow, wired, stages))
    )
    if with_h and len(wired) == 1 and blocks is None:
        _warn_of_one_block(flow, wired[0])
    return Plan(
        model=type(flow.trace.root).__name__,
        input_shape=flow.shapes.inputs[0],
        stages=built,
        head=tuple(refs.name(n) for n in chain.head),
        left_out=(*left_out(survey, table), *((path, ALONE) for path in alone)),
        notes=tuple(dict.fromkeys(traced.notes)),
    )


def left_out(survey: Survey, table: Table) -> tuple[tuple[str, str], ...]:
    """What the plan tells of candidates that are no blocks, in the order in which they run."""
    order = {name: i for i, name in enumerate(survey.candidates)}
    names = sorted(table.told, key=lambda name: order.get(name, len(order)))
    return tuple((name, str(table.verdicts[name])) for name in names)


def _warn_of_one_block(flow: Flow, block: Wired) -> None:
    """Warn of a plan of one block in a network of many convolutions."""
    convs = sum(map(flow.image_conv, flow.nodes))
    if convs >= MANY:
        warnings.warn(
            f"{type(flow.trace.root).__name__}: of {convs} convolutions only one block was made, "
            f"{block.found.path or '(network)'}; name more with blocks= (a class, paths or a "
            "glob).",
            RLAWarning,
            stacklevel=5,
        )
