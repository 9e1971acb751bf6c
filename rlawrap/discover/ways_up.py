"""Rules 8 and 12: what concatenates for the blocks that it holds, as on the way up of a UNet."""

from __future__ import annotations

import itertools
from collections import defaultdict

from rlawrap.discover.claims import claimed
from rlawrap.discover.holders import adds
from rlawrap.discover.places import Paths, inside
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table, Verdict, Votes


def decoders_are_stages(survey: Survey, table: Table) -> Votes:
    """Rule 8, `decoder`: what concatenates several times, images of several sizes, for the modules
    of one class in which it convolves is a stage, and they are blocks.

        skips ──────┬─────────────┬───
        x ─── up ─(cat)─ Double ─(cat)─ Double ──

    So is what concatenates between modules of several convolutions each, one behind the other, as a
    dense stage does (SparseNet).
    """
    votes: dict[str, Verdict] = {}
    for path, joins in claimed(survey, table).items():
        if len(joins) > 1 and not adds(joins):
            held = _held(survey, path)
            if len(held) > 1 and (_sizes_differ(survey, path) or _are_a_row(survey, held)):
                votes[path] = Verdict(Reason.HOLDS_SEVERAL)
                votes.update({part: Verdict(Reason.ONLY_PART) for part in held})
    return votes


def _are_a_row(survey: Survey, parts: list[str]) -> bool:
    """Whether modules have several convolutions each, and each reads what the one before made."""
    convs = [[n for n in survey.nodes_of(p) if survey.flow.ops.conv(n)] for p in parts]
    deep = all(len(own) > 1 for own in convs)
    return deep and all(survey.flow.derives(b[0], a[-1]) for a, b in itertools.pairwise(convs))


def _held(survey: Survey, path: str) -> list[str]:
    """The modules of one class in which a module convolves, but for what enlarges and one pixel.

    Of several classes that of the most convolutions.
    """
    count: dict[str, int] = defaultdict(int)
    for node in survey.nodes_of(path):
        conv = survey.flow.ops.conv(node)
        if conv is None or conv.transposed or not conv.spatial_kernel:
            continue
        held = [p for p, _ in survey.flow.trace.stacks[node] if inside(p, path)]
        part = next((p for p in held if not survey.is_container(p)), None)
        if part is None:
            return []
        count[part] += 1
    classes: dict[type, list[str]] = defaultdict(list)
    for part in count:
        classes[survey.class_of(part)].append(part)
    return max(classes.values(), key=lambda parts: sum(map(count.__getitem__, parts)), default=[])


def one_held_is_the_block(survey: Survey, table: Table) -> Votes:
    """Rule 12, `only part`: what concatenates for the one module in which it convolves is no block,
    where this module's class convolves elsewhere too.

        skip ───────┐
        x ─── up ─(cat)── Double ──      and  … ─ Double ─ pool ─ Double ─ … on the way down

    An owner that adds, that convolves in layers of its own, or that gets images of one size (a
    dense layer) is a block itself, and then all are.
    """
    claims = claimed(survey, table)
    parts: dict[str, str] = {}
    for path, joins in claims.items():
        part = None if adds(joins) else _only_part(survey, path)
        if part is None or not _sizes_differ(survey, path):
            return {}
        parts[path] = part
    classes = set(map(survey.class_of, parts.values()))
    paths = Paths(claims)
    outside = [
        p
        for p, c in survey.candidates.items()
        if c.region is None and p not in claims and not paths.around(p)
    ]
    if len(classes) != 1 or not any(survey.class_of(p) in classes for p in outside):
        return {}
    holders = {path: Verdict(Reason.HOLDS_ONE) for path in parts}
    return {**holders, **{part: Verdict(Reason.ONLY_PART) for part in parts.values()}}


def _sizes_differ(survey: Survey, path: str) -> bool:
    """Whether a module gets images of several sizes."""
    flow, nodes = survey.flow, survey.nodes_of(path)
    outside = {s for n in nodes for s in flow.sources[n]} - set(nodes)
    return len({flow.spatial(s) for s in outside if flow.is_image(s)}) > 1


def _only_part(survey: Survey, path: str) -> str | None:
    """The module below `path` in which all of its convolutions run; a transposed one may be apart.

    Of several, one in another, the outermost that is no container.
    """
    common: list[str] | None = None
    for node in survey.nodes_of(path):
        conv = survey.flow.ops.conv(node)
        if conv is None or conv.transposed:
            continue
        held = [p for p, _ in survey.flow.trace.stacks[node] if inside(p, path)]
        held = [p for p in held if not survey.is_container(p)]
        common = held if common is None else [p for p in common if p in held]
    return common[0] if common else None
