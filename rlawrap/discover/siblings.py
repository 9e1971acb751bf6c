"""Rules 9 to 11, 14 and 22 to 24: the outermost owners, and what they say of other modules."""

from __future__ import annotations

from collections import Counter, defaultdict

from rlawrap.discover.claims import claimed
from rlawrap.discover.places import Paths, outermost
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table, Verdict, Votes


def imageless_are_none(survey: Survey, table: Table) -> Votes:
    """Rule 9, `no image`: what returns no image is no block: h could not be updated from it.

    Wrapped [ Backbone [ Block(+), Block(+) ], (cat), pool, fc ] ── logits
    """
    return {
        name: Verdict(Reason.NO_IMAGE) for name in table.blocks if not survey[name].evidence.image
    }


def outermost_are_blocks(survey: Survey, table: Table) -> Votes:
    """Rule 10, `outermost`: owners nest, and the outermost that other rules leave is the block.

    Bottleneck [ conv, SelectiveKernel [ a, b, (+) ], conv, (+) ]
    └ block           └ part
    """
    names: dict[str, list[str]] = defaultdict(list)
    for name in table.blocks:
        names[survey[name].path].append(name)
    blocks = Paths(names)
    votes = {}
    for name in table.blocks:
        around = [other for path in blocks.around(survey[name].path) for other in names[path]]
        if around:
            votes[name] = Verdict(Reason.LIES_INSIDE, min(around, key=len))
    return votes


def ends_are_stem_and_head(survey: Survey, table: Table) -> Votes:
    """Rule 11, `ends`: a class that occurs once, before or after all that repeat, is stem or head.

        StemV2 ─ Block ─ Block ─ Reduction ─ Block ─ Block ─ Mixed ─ pool ─ fc
        └ stem                   └ a block                   └ head

    One at the place of other blocks is a block all the same.
    """
    claims = claimed(survey, table)
    position = survey.flow.position
    first = {path: min(position[join.node] for join in joins) for path, joins in claims.items()}
    count = Counter(survey[path].cls for path in claims)
    repeated = [first[path] for path in claims if count[survey[path].cls] > 1]
    if not repeated:
        return {}
    votes = {}
    for path, start in first.items():
        if count[survey[path].cls] == 1 and not min(repeated) < start < max(repeated):
            reason = Reason.FIRST_OF_ALL if start < min(repeated) else Reason.LAST_OF_ALL
            votes[path] = Verdict(reason, survey[path].cls.__name__)
    return votes


def likes_are_blocks(survey: Survey, table: Table) -> Votes:
    """Rule 14, `like`: modules of a block's class, or at its place, are blocks without a join.

        features ─ Inverted(+) ─ Inverted, stride 2 ─ Inverted(+)      one class
        blocks[0][0] Separable ─ blocks[1][0] Inverted(+)              one place, *.*

    A place counts if two of its steps repeat, and what stands there needs a spatial kernel. One of
    a block's class is a block, too, where it holds what is a part of others of this class:

        Block [ conv, Fuse(+), (+) ] ─ Block, stride 2 [ conv, Fuse(+) ]
    """
    blocks = [survey[name] for name in table.blocks]
    modules = [c for c in blocks if c.region is None]
    classes = {c.cls for c in modules if not c.evidence.container}
    places = {c.evidence.place for c in modules if c.evidence.repeats >= 2}
    taken = {c.path: c.cls for c in blocks}
    paths = Paths(taken)
    parts = _parts_of_classes(survey, table)
    votes: dict[str, Verdict] = {}
    inner: dict[str, Verdict] = {}
    for name, c in survey.candidates.items() if modules else ():
        known = c.evidence
        if c.region is not None or known.container or not known.image:
            continue
        if c.cls in classes:
            reason = Reason.SAME_CLASS
        elif known.place in places and known.spatial:
            reason = Reason.SAME_PLACE
        else:
            continue
        held = paths.below(c.path)
        if held and reason is Reason.SAME_CLASS and c.path not in taken:
            if {taken[path] for path in held} <= parts[c.cls]:
                inner |= dict.fromkeys(held, Verdict(Reason.LIES_INSIDE, name))
                votes[name] = Verdict(reason)
        elif not paths.related(c.path):
            votes[name] = Verdict(reason)
    return {**{name: votes[name] for name in outermost(votes)}, **inner}


def _parts_of_classes(survey: Survey, table: Table) -> dict[type, set[type]]:
    """For each class of blocks the classes of owners of joins that lie in one of them."""
    parts: dict[type, set[type]] = defaultdict(set)
    for name, verdict in table.verdicts.items():
        if verdict.reason is Reason.LIES_INSIDE and verdict.about in table.blocks:
            parts[survey[verdict.about].cls].add(survey[name].cls)
    return parts


def sequences_are_left_out(survey: Survey, table: Table) -> Votes:
    """Rule 22, `tokens`: a residual module on a sequence of tokens is left out; h is an image.

    (N, C, H, W) ─ blocks ─ flatten, transpose ─ (N, HW, C) ──┬─ attention ─(+)──
                                                              └─────────────┘
    """
    taken = Paths(survey[name].path for name in table.blocks)
    owners = outermost(n for n, c in survey.candidates.items() if c.evidence.tokens)
    return {n: Verdict(Reason.SEQUENCE) for n in owners if not taken.related(n)}


def repeated_are_told(survey: Survey, table: Table) -> Votes:
    """Rule 23, `passed over`: other repeated modules of several convolutions are named.

    Double ─ Residual(+) ─ Double ─ Residual(+)
    └ told   └ block
    """
    if not table.blocks:
        return {}
    known = Paths(survey[name].path for name in (*table.blocks, *table.told))
    paths = [
        name
        for name, c in survey.candidates.items()
        if c.region is None
        and not c.evidence.container
        and c.evidence.convolutions > 1
        and c.evidence.spatial
        and not known.related(name)
    ]
    count = Counter(survey[path].cls for path in paths)
    repeated = outermost(path for path in paths if count[survey[path].cls] > 1)
    return {path: Verdict(Reason.NO_JOIN) for path in repeated}


def rest_is_settled(survey: Survey, table: Table) -> Votes:
    """Rule 24, `rest`: what lies in a block is a part of it, whatever else was said of it.

    layer1 [ 0 [ conv1, downsample ], 1 [ … ] ]
    │        │   └ parts              └ block
    │        └ block
    └ holds blocks
    """
    blocks = {survey[name].path: name for name in table.blocks}
    paths = Paths(blocks)
    votes: dict[str, Verdict] = {}
    for name, c in survey.candidates.items():
        said = table.verdicts.get(name)
        around = paths.around(c.path)
        if around and (said is None or said.reason.told):
            votes[name] = Verdict(Reason.LIES_INSIDE, blocks[around[0]])
        elif said is None:
            votes[name] = Verdict(Reason.HOLDS if paths.below(c.path) else Reason.UNLIKE)
    return votes
