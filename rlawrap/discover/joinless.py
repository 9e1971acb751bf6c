"""Rules 16 to 19 and 21: blocks where no module joins. Each speaks if none did before."""

from __future__ import annotations

from collections import Counter, defaultdict

from rlawrap.discover.candidates import Candidate, Kind
from rlawrap.discover.claims import nothing_joins
from rlawrap.discover.global_joins import MANY, layers_in_a_row, repeated_structures, spans
from rlawrap.discover.places import outermost
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table, Verdict, Votes


def own_steps_are_blocks(survey: Survey, table: Table) -> Votes:
    """Rule 16, `own step`: the steps of the network's own forward.

        def forward(self, x):
            x = relu(x + self.a(x))      # [0]
            x = relu(x + self.b(x))      # [1]

    Not a single one beside a class or structure that repeats or many layers in a row, none around
    most of the network (a global skip), and none that gather the outputs of several modules of such
    a class: then what repeats are the blocks, or the layers.
    """
    if not nothing_joins(survey, table):
        return {}
    steps = [c for c in survey.candidates.values() if c.kind is Kind.STEP and not c.path]
    if any(step.region is not None and spans(survey, step.region.nodes) for step in steps):
        return {}
    repeated = _repeated_class(survey) or repeated_structures(survey)
    if len(steps) < 2 and (repeated or layers_in_a_row(survey, survey.flow.nodes) >= MANY):
        return {}
    if repeated and _gather(survey, steps, repeated):
        return {}
    return {step.name: Verdict(Reason.OWN_STEP) for step in steps}


def repeated_class_is_block(survey: Survey, table: Table) -> Votes:
    """Rule 17, `class repeats`: a class that convolves and stands in three places or more.

        Separable ─ Separable ─ Separable ─ Separable ─ …      (MobileNetV1)

    Of several classes the one that convolves most, and of nested modules the outermost, which alone
    are counted.
    """
    if not nothing_joins(survey, table):
        return {}
    return {path: Verdict(Reason.CLASS_REPEATS) for path in _repeated_class(survey)}


def repeated_structure_is_block(survey: Survey, table: Table) -> Votes:
    """Rule 18, `structure repeats`: modules that learn in the same layers, whatever their class.

        d1 ───────────────────── skip ───────────────────(cat)─ u1
          └─ d2 ──────── skip ────────(cat)─ u2 ─ enlarge ─┘
               └─ d3 ─────── enlarge ───┘          each (conv, norm, conv, norm)

    A `Sequential` may hold anything. Three at least, of several convolutions each, where the
    network joins what they return; in a plain chain the layers themselves are blocks. Of one
    convolution where no activation follows it, so that it is no layer (pix2pix).
    """
    if not survey.joins or not nothing_joins(survey, table):
        return {}
    return {path: Verdict(Reason.STRUCTURE_REPEATS) for path in repeated_structures(survey)}


def repeated_place_is_block(survey: Survey, table: Table) -> Votes:
    """Rule 19, `place repeats`: modules at one place, two of whose steps repeat.

    stages[0][0] A ─ stages[0][1] B ─ stages[1][0] C ─ …      with a spatial kernel each
    """
    if not nothing_joins(survey, table):
        return {}
    found = {c.name: c.evidence for c in _convolving(survey) if c.evidence.spatial}
    count = Counter(known.place for known in found.values() if known.repeats >= 2)
    hit = outermost(path for path, known in found.items() if count[known.place] >= 2)
    return {path: Verdict(Reason.PLACE_REPEATS) for path in hit}


def layers_are_blocks(survey: Survey, table: Table) -> Votes:
    """Rule 21, `layer`: each convolution with its norm and activation (VGG).

    Where some are depthwise and dense ones together, a plain one before or after all of these is
    stem or head.
    """
    if not nothing_joins(survey, table):
        return {}
    layers = list(survey.layers.values())
    several = [i for i, layer in enumerate(layers) if layer.evidence.convolutions > 1]
    first, last = (several[0], several[-1]) if len(several) > 1 else (0, len(layers))
    return {
        layer.name: Verdict(Reason.LAYER if first <= i <= last else Reason.UNLIKE_LAYER)
        for i, layer in enumerate(layers)
    }


def _convolving(survey: Survey) -> list[Candidate]:
    """Modules that convolve images; a channel gate (ECA) convolves the channels' means."""
    return [
        c
        for c in survey.candidates.values()
        if c.region is None and c.evidence.convolutions and not c.evidence.container
    ]


def _repeated_class(survey: Survey) -> list[str]:
    found = _convolving(survey)
    paths: dict[type, list[str]] = defaultdict(list)
    for c in found:
        paths[c.cls].append(c.path)
    count = {cls: len(outermost(of_class)) for cls, of_class in paths.items()}
    weight: Counter[type] = Counter()
    for c in found:
        if count[c.cls] >= 3:
            weight[c.cls] += c.evidence.convolutions
    if not weight:
        return []
    ((best, _),) = weight.most_common(1)
    return outermost(c.path for c in found if c.cls is best)


def _gather(survey: Survey, steps: list[Candidate], repeated: list[str]) -> bool:
    """Whether steps that add nothing gather the outputs of several repeated modules each."""
    if any(step.evidence.adds for step in steps):
        return False
    stacks = survey.flow.trace.stacks
    regions = [step.region for step in steps if step.region is not None]
    inside_of = [{path for n in region.nodes for path, _ in stacks[n]} for region in regions]
    return any(len(called & set(repeated)) > 1 for called in inside_of)
