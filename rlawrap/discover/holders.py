"""Rules 3 to 7: modules that join, and hold, gather or fold instead of being blocks."""

from __future__ import annotations

from collections import Counter, defaultdict

from rlawrap.discover.claims import claimed
from rlawrap.discover.joins import Join
from rlawrap.discover.places import Paths, outermost, parent_of
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table, Verdict, Votes

Claims = dict[str, list[Join]]


def folding_is_no_block(survey: Survey, table: Table) -> Votes:
    """Rule 3, `folding`: linear branches that are added fold into one convolution.

        x ──┬─ conv 3x3 ─ norm ─┐
            ├─ conv 1x1 ─ norm ─(+)── relu
            └───────────────────┘

    Unless the network has nothing else (RepVGG), or more of these, of classes of their own, than of
    all else (the encoder of a UNet).
    """
    claims = claimed(survey, table)
    folds = {path for path, joins in claims.items() if all(join.folds for join in joins)}
    others = [path for path in claims if path not in folds]
    if not others:
        return {}
    around, classes = Paths(others).around, set(map(survey.class_of, others))
    alone = {p for p in outermost(folds) if not around(p) and survey.class_of(p) not in classes}
    if len(alone) > len(outermost(others)):
        folds -= alone
    return {path: Verdict(Reason.FOLDS) for path in claims if path in folds}


def containers_are_parts(survey: Survey, table: Table) -> Votes:
    """Rule 4, `container`: a container that joins in its own forward joins for a module around it.

        OsaBlock ── layers (a Sequential that concatenates what its children make)
        └ block     └ part

    Several in a list are blocks of a stage; several attributes of a module whose class repeats are
    parts of one block.
    """
    votes: dict[str, Verdict] = {}
    by_home: dict[str, list[str]] = defaultdict(list)
    for path in claimed(survey, table):
        if survey.is_container(path):
            by_home[survey.home(path)].append(path)
    for home, paths in by_home.items():
        if home not in survey.candidates:
            continue
        attributes = all(parent_of(path) == home for path in paths)
        if len(paths) == 1 or (attributes and survey[home].evidence.of_class > 1):
            votes[home] = Verdict(Reason.PARTS_JOIN)
            votes.update({path: Verdict(Reason.CONTAINER, home) for path in paths})
    return votes


def holders_are_stages(survey: Survey, table: Table) -> Votes:
    """Rule 5, `stage`: what holds a list of owners of one class is a stage, and so is its class.

    CrossStage ──┬─ one ─────────────────┐
                 └─ two ─ blocks[0 … n] ─(cat)──
    """
    votes: dict[str, Verdict] = {}
    while True:
        left = {p: joins for p, joins in claimed(survey, table).items() if p not in votes}
        paths = Paths(left)
        stages = {survey.class_of(p) for p in left if _holds_blocks(survey, p, left, paths)}
        found = [path for path in left if survey.class_of(path) in stages]
        if not found:
            return votes
        votes.update({path: Verdict(Reason.HOLDS_BLOCKS) for path in found})


def _holds_blocks(survey: Survey, path: str, claims: Claims, paths: Paths) -> bool:
    below = paths.below(path)
    classes = {survey.class_of(p) for p in below}
    own = survey.class_of(path)
    if len(classes) > 1 and own in classes and not survey.is_container(path):
        return True  # an hourglass: a block holds no other block of its own class
    if adds(claims[path]):
        # A ghost module or a mixed convolution is a part of the residual block around it.
        below = [p for p in below if adds(claims[p])]
    count: Counter[tuple[str, type]] = Counter()
    for p in outermost(below):
        if survey.is_container(parent_of(p)) or parent_of(p) == path:
            count[parent_of(p), survey.class_of(p)] += 1
    return any(_is_list(survey, holder, claims, cls, n) for (holder, cls), n in count.items())


def _is_list(survey: Survey, holder: str, claims: Claims, cls: type, owners: int) -> bool:
    """Whether a module, which holds owners of a class, lists blocks."""
    children = dict(survey.modules[holder].named_children())
    if survey.is_container(holder):
        # A list that holds nothing but one block is a stage of depth one.
        return owners >= 2 or owners == len(children)
    # A module that only concatenates and loops over its children, of which the first may join
    # nothing: the dense block of the original DenseNets.
    alike = {survey.class_of(f"{holder}.{name}") for name in children} == {cls}
    own = any(True for _ in survey.modules[holder].parameters(recurse=False))
    return alike and not own and owners >= 2 < len(children) and not adds(claims[holder])


def adds(joins: list[Join]) -> bool:
    return any(join.adds for join in joins)


def gatherers_are_none(survey: Survey, table: Table) -> Votes:
    """Rule 6, `gatherer`: first concatenates only what it is given, and has no spatial kernel.

    block a ──┐
    block b ─(cat)── conv 1x1 ──      (the root of a tree in DLA)
    """
    return {
        path: Verdict(Reason.GATHERS)
        for path in claimed(survey, table)
        if survey[path].evidence.gathers
    }


def loops_are_stages(survey: Survey, table: Table) -> Votes:
    """Rule 7, `loop`: a forward that loops over its layers is a stage, and each step a block.

        for conv in self.convs:        x ─┬ conv 0 (+) ─┬ conv 1 (+) ─ …
            x = x + conv(x)               └────────┘    └────────┘

    Steps of one loop run layers at the same indices of containers, or the same attributes of what
    lies there: `convs.3`, not `conv3`. The two halves of a MetaFormer block do not.
    """
    votes: dict[str, Verdict] = {}
    steps: dict[str, list[str]] = defaultdict(list)
    for name, candidate in survey.candidates.items():
        if candidate.region is not None:
            steps[candidate.path].append(name)
    for path in claimed(survey, table):
        names = steps[path]
        slots = [_slots(survey, name) for name in names]
        most = max(Counter(slots).values(), default=0)
        if most >= 2 and most * 2 >= len(names) and all(slots):
            votes[path] = Verdict(Reason.LOOPS)
            votes.update({name: Verdict(Reason.LOOP_STEP) for name in names})
        else:
            votes.update({name: Verdict(Reason.NOT_ALONE) for name in names})
    return votes


def _slots(survey: Survey, step: str) -> frozenset[object]:
    """Where in the tree the convolutions of a step lie, whatever their index in a container."""
    region = survey[step].region
    convs = [n for n in region.nodes if survey.flow.ops.conv(n)] if region else []
    return frozenset(survey.places.slot(str(n.target)) for n in convs if n.op == "call_module")
