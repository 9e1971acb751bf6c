"""Which layers h enters in vain: nothing that is returned can learn from what it adds there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlawrap.config import RLAConfig
from rlawrap.design.design import Design, Entry
from rlawrap.design.entries import Network, entry_paths
from rlawrap.design.heads import head_entries
from rlawrap.errors import PlanError, few
from rlawrap.flow.liveness import Liveness
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced
from rlawrap.plan import Plan, not_entered, not_joined

UNTAUGHT = "it reads a detached value, and that h would learn from nothing else"

Dead = dict[tuple[int | None, str], str]


@dataclass(frozen=True)
class Way:
    """What h adds to: a reference, and whether the layer there reads h detached.

    after: of a head the step whose h joins it; -1 is the last.
    """

    target: str
    detached: bool = False
    after: int = -1


@dataclass(frozen=True)
class Reads:
    """One step of the recurrence, by references: what its h is updated from and adds to."""

    path: str
    parent: int | None
    source: str
    ways: tuple[Way, ...]


def dead_targets(traced: Traced, steps: Sequence[Reads], head: Sequence[Way]) -> Dead:
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

    def ask(index: int | None, ways: Sequence[Way]) -> list[Way]:
        """Those of the ways through which h learns."""
        living_ways = [way for way in ways if lives(way.target)]
        for way in ways:
            if way not in living_ways:
                dead[index, way.target] = _why(living, refs, way.target)
        return [way for way in living_ways if not way.detached]

    needed = [False] * len(steps)
    for way in ask(None, head):
        needed[way.after] = True
    for index in reversed(range(len(steps))):
        step = steps[index]
        source = refs.find(step.source) if needed[index] else None
        if source is not None:
            living.extend(alive, [source])
        if step.parent is not None and (ask(index, step.ways) or needed[index]):
            needed[step.parent] = True
    for at, after, way in _readers(steps, head):
        if not needed[after] and (at, way.target) not in dead:
            dead[at, way.target] = UNTAUGHT
    return dead


def _readers(steps: Sequence[Reads], head: Sequence[Way]) -> Iterator[tuple[int | None, int, Way]]:
    """Every way of h: the step it is of (None: a head), the step whose h it reads, and itself."""
    for index, step in enumerate(steps):
        if step.parent is not None:
            yield from ((index, step.parent, way) for way in step.ways)
    yield from ((None, way.after, way) for way in head)


def _why(living: Liveness, refs: References, target: str) -> str:
    told: dict[str, None] = {}
    for node, what in living.cuts(refs.node(target)):
        name = refs.find_name(node)
        told[f"{name} {what}" if name else what] = None
    reason = few(list(told), most=2) or "nothing that is returned is made from it"
    return f"what it adds there is lost: {reason}"


def _ways(entries: Sequence[Entry]) -> tuple[Way, ...]:
    return tuple(Way(entry.target, entry.detached, entry.after) for entry in entries)


def _notes(steps: Sequence[Reads], dead: Dead) -> list[str]:
    """A note on each of the targets, in the order of the blocks."""
    notes = [
        f"{not_entered(step.path, way.target)}{dead[index, way.target]}"
        for index, step in enumerate(steps)
        for way in step.ways
        if (index, way.target) in dead
    ]
    head = [(target, why) for (index, target), why in dead.items() if index is None]
    return notes + [f"{not_joined(target)}{why}" for target, why in head]


def drop_dead(design: Design, traced: Traced) -> None:
    """Leave out, and note, every way of h that ends in vain."""
    steps = [Reads(s.block.path, s.parent, s.source, _ways(s.entries)) for s in design.steps]
    dead = dead_targets(traced, steps, _ways(design.head))
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
        ways: list[Way] = []
        if isinstance(block.after, int) and block.input is not None:
            entries = [network.refs.node(entry) for entry in block.entries]
            start = network.refs.node(block.input)
            paths, problems = entry_paths(network, block, entries, start, config.inject)
            ways = [
                Way(network.refs.name(p.target), network.flow.severed(p.target, start))
                for p in paths
            ]
            notes += problems
        parent = block.after if isinstance(block.after, int) else None
        steps.append(Reads(block.path, parent, block.output, tuple(ways)))
    head, problems = head_entries(network, plan)
    joined = _ways(head)
    dead = dead_targets(traced, steps, joined)
    notes += [*problems, *_notes(steps, dead)]
    reading = [(i, way.target) for i, step in enumerate(steps) for way in step.ways]
    if dead.keys() >= {*reading, *((None, way.target) for way in joined)}:
        raise PlanError(
            f"nothing reads h: {'; '.join(notes)}. Choose more blocks with blocks= (a class, paths "
            "or a glob)."
        )
    return notes
