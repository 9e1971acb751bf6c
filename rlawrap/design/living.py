"""Which layers h enters in vain: nothing that is returned can learn from what it adds there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlawrap.config import RLAConfig
from rlawrap.design.design import Design
from rlawrap.design.entries import Network, entry_paths, head_entries
from rlawrap.errors import PlanError, few
from rlawrap.flow.liveness import Liveness
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced
from rlawrap.plan import Plan

Dead = dict[tuple[int | None, str], str]


@dataclass(frozen=True)
class Reads:
    """One step of the recurrence, by references: what its h is updated from and adds to."""

    path: str
    parent: int | None
    source: str
    targets: tuple[str, ...]


def dead_targets(traced: Traced, steps: Sequence[Reads], head: Sequence[str]) -> Dead:
    """The targets that h enters in vain, by step (None for the head), and why.

    What h adds to a layer may reach the output in two ways: through the network, and through the
    updates of h behind it, where a later block or the head reads h. Training decides: it is the
    graph of train mode that is asked. A first step is left alone, it multiplies h^0.
    """
    flow = traced.training or traced.flow
    refs, living = References(flow.trace), Liveness(flow)
    alive = living.returned()

    def lives(target: str) -> bool:
        node = refs.find(target)
        return node is None or node in alive  # what train mode runs elsewhere is not told from here

    dead: Dead = {}

    def ask(index: int | None, targets: Sequence[str]) -> bool:
        for target in targets:
            if not lives(target):
                dead[index, target] = _why(living, refs, target)
        return any(map(lives, targets))

    needed = [False] * len(steps)
    if ask(None, head):
        needed[-1] = True
    for index in reversed(range(len(steps))):
        step = steps[index]
        source = refs.find(step.source) if needed[index] else None
        if source is not None:
            alive |= living.reaching([source])
        if step.parent is not None and (ask(index, step.targets) or needed[index]):
            needed[step.parent] = True
    return dead


def _why(living: Liveness, refs: References, target: str) -> str:
    told: dict[str, None] = {}
    for node, what in living.cuts(refs.node(target)):
        name = refs.find_name(node)
        told[f"{name} {what}" if name else what] = None
    reason = few(list(told), most=2) or "nothing that is returned is made from it"
    return f"what it adds there is lost: {reason}"


def _notes(steps: Sequence[Reads], dead: Dead) -> list[str]:
    """A note on each of the targets, in the order of the blocks."""
    notes = [
        f"{step.path}: h does not enter {target}: {dead[index, target]}"
        for index, step in enumerate(steps)
        for target in step.targets
        if (index, target) in dead
    ]
    head = [(target, why) for (index, target), why in dead.items() if index is None]
    return notes + [f"head: h does not join {target}: {why}" for target, why in head]


def drop_dead(design: Design, traced: Traced) -> None:
    """Leave out, and note, every way of h that ends in vain."""
    steps = [
        Reads(s.block.path, s.parent, s.source, tuple(e.target for e in s.entries))
        for s in design.steps
    ]
    dead = dead_targets(traced, steps, [e.target for e in design.head])
    for step in design.steps:
        step.entries = [e for e in step.entries if (step.index, e.target) not in dead]
    design.head = [e for e in design.head if (None, e.target) not in dead]
    design.unreached += _notes(steps, dead)


def unreached(traced: Traced, plan: Plan) -> list[str]:
    """A note on each entry of a found plan that h, with the default configuration, cannot reach,
    or enters in vain.

    Raises `PlanError` where nothing is left that reads h.
    """
    config = RLAConfig()
    network = Network.of(traced, config)
    notes: list[str] = []
    steps: list[Reads] = []
    for block in plan.blocks:
        targets: list[str] = []
        if isinstance(block.after, int) and block.input is not None:
            entries = [network.refs.node(entry) for entry in block.entries]
            start = network.refs.node(block.input)
            paths, problems = entry_paths(network, block, entries, start, config.inject)
            targets = [network.refs.name(path.target) for path in paths]
            notes += problems
        parent = block.after if isinstance(block.after, int) else None
        steps.append(Reads(block.path, parent, block.output, tuple(targets)))
    head, problems = head_entries(network, plan)
    joined = [entry.target for entry in head]
    dead = dead_targets(traced, steps, joined)
    notes += [*problems, *_notes(steps, dead)]
    reading = [(i, t) for i, step in enumerate(steps) for t in step.targets]
    if dead.keys() >= {*reading, *((None, target) for target in joined)}:
        raise PlanError(
            f"nothing reads h: {'; '.join(notes)}. Choose more blocks with blocks= (a class, paths "
            "or a glob)."
        )
    return notes
