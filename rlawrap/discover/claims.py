"""Whose a join is: of the module whose forward makes it, or of the block that this is a part of."""

from __future__ import annotations

from collections import defaultdict

from rlawrap.discover.joins import Join
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Role, Table, Verdict, Votes


def owners_of_joins(survey: Survey, table: Table) -> Votes:
    """Rule 1, `owner`: a join belongs to the innermost module whose forward made it.

    Bottleneck.forward:   x ──┬── conv … norm ──(+)── relu
                              └─────────────────┘
    """
    return {
        name: Verdict(Reason.JOINS)
        for name, candidate in survey.candidates.items()
        if candidate.region is None and candidate.evidence.joins
    }


def claimed(survey: Survey, table: Table) -> dict[str, list[Join]]:
    """The joins of each module that is a block so far, in order: its own and those of its parts."""
    claims: dict[str, list[Join]] = defaultdict(list)
    for join in survey.joins:
        verdict = table.verdicts.get(path := join.owner)
        while verdict is not None and verdict.reason in (Reason.WRAPPER, Reason.CONTAINER):
            verdict = table.verdicts.get(path := verdict.about)
        if verdict is not None and verdict.role is Role.BLOCK:
            claims[path].append(join)
    return claims


def nothing_joins(survey: Survey, table: Table) -> bool:
    """No block so far; convolutions before a transformer are its patch embedding, and no blocks."""
    return not table.blocks and not any(c.evidence.tokens for c in survey.candidates.values())
