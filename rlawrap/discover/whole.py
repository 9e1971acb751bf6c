"""Rules 13 and 20: blocks that stay whole, as tracing cannot follow them; h reads them only."""

from __future__ import annotations

from collections import defaultdict

from torch import fx

from rlawrap.discover.candidates import Candidate, Kind
from rlawrap.discover.claims import nothing_joins
from rlawrap.discover.places import Paths
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table, Verdict, Votes


def asked_whole_are_blocks(survey: Survey, table: Table) -> Votes:
    """Rule 13, `kept whole`: modules of one class that `leaf_modules=` keeps whole are blocks.

        Residual(+) ─ [Clipped] ─ [Clipped] ─ Residual(+)      [ ] not traced into

    Beside other blocks, a class that changes the shape of every image it gets is a transition.
    """
    leaves = survey.flow.trace.user_leaves
    classes = tuple(leaf for leaf in leaves if isinstance(leaf, type))
    taken = [survey[name].path for name in table.blocks]
    votes: dict[str, Verdict] = {}
    for cls, whole in _by_class(survey, taken).items():
        asked = {
            c.name: nodes
            for c, nodes in whole
            if c.path in leaves or isinstance(survey.modules[c.path], classes)
        }
        calls = [node for nodes in asked.values() for node in nodes]
        if len(calls) == 1:
            verdict = Verdict(Reason.WHOLE_ALONE, cls.__name__)
        elif taken and not any(_keeps_shape(survey, node) for node in calls):
            verdict = Verdict(Reason.RESHAPES)
        else:
            verdict = Verdict(Reason.KEPT_WHOLE)
        votes.update(dict.fromkeys(asked, verdict))
    return votes


def any_whole_are_blocks(survey: Survey, table: Table) -> Votes:
    """Rule 20, `any whole`: where no block is found, what is kept whole and repeats."""
    if not nothing_joins(survey, table):
        return {}
    votes: dict[str, Verdict] = {}
    for whole in _by_class(survey, []).values():
        if sum(len(nodes) for _, nodes in whole) > 1:
            votes.update({c.name: Verdict(Reason.KEPT_WHOLE) for c, _ in whole})
    return votes


def _by_class(
    survey: Survey, taken: list[str]
) -> dict[type, list[tuple[Candidate, list[fx.Node]]]]:
    """What was kept whole apart from `taken` and returns images, with its calls."""
    flow = survey.flow
    apart = Paths(taken)
    calls: dict[str, list[fx.Node]] = defaultdict(list)
    for node, (path, _) in flow.trace.leaf_frames.items():
        if node in flow.data and flow.alive(node) and flow.is_image(node):
            calls[path].append(node)
    classes: dict[type, list[tuple[Candidate, list[fx.Node]]]] = defaultdict(list)
    for c in survey.candidates.values():
        if c.kind is Kind.WHOLE and calls[c.path] and not apart.related(c.path):
            classes[c.cls].append((c, calls[c.path]))
    return classes


def _keeps_shape(survey: Survey, node: fx.Node) -> bool:
    shapes = survey.flow.shapes
    return any(shapes.of(s) == shapes.of(node) for s in survey.flow.sources[node])
