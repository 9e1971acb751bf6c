"""The rules of discovery in the order they speak, and the table of verdicts that comes of them.

A rule is a function of the survey (what is known of each candidate, which no rule changes) and of
the verdicts so far; it returns votes, each with its reason, and a new table takes them in. To add
one, write it where its like are and put it into `RULES`. What a rule leaves open stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable

from rlawrap.discover.claims import owners_of_joins
from rlawrap.discover.global_joins import global_joins_are_none
from rlawrap.discover.holders import (
    containers_are_parts,
    folding_is_no_block,
    gatherers_are_none,
    holders_are_stages,
    loops_are_stages,
)
from rlawrap.discover.joinless import (
    layers_are_blocks,
    own_steps_are_blocks,
    repeated_class_is_block,
    repeated_place_is_block,
    repeated_structure_is_block,
)
from rlawrap.discover.siblings import (
    ends_are_stem_and_head,
    imageless_are_none,
    likes_are_blocks,
    outermost_are_blocks,
    repeated_are_told,
    rest_is_settled,
    sequences_are_left_out,
)
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Table, Votes
from rlawrap.discover.ways_up import decoders_are_stages, one_held_is_the_block
from rlawrap.discover.whole import any_whole_are_blocks, asked_whole_are_blocks
from rlawrap.discover.wrappers import wrappers_are_parts

Rule = Callable[[Survey, Table], Votes]

#: The rules with their names, numbered from 1 as in docs/discovery.md.
RULES: tuple[tuple[str, Rule], ...] = (
    # Who owns the joins, and which owners are parts, stages and transitions.
    ("owner", owners_of_joins),
    ("wrapper", wrappers_are_parts),
    ("folding", folding_is_no_block),
    ("container", containers_are_parts),
    ("stage", holders_are_stages),
    ("gatherer", gatherers_are_none),
    ("loop", loops_are_stages),
    ("decoder", decoders_are_stages),
    # Of the owners that are left the outermost are blocks: chosen once, and no other rule nests.
    ("no image", imageless_are_none),
    ("outermost", outermost_are_blocks),
    # What these say of the modules around and like them.
    ("ends", ends_are_stem_and_head),
    ("only part", one_held_is_the_block),
    ("kept whole", asked_whole_are_blocks),
    ("like", likes_are_blocks),
    # Where no module joins, or one around all others.
    ("global skip", global_joins_are_none),
    ("own step", own_steps_are_blocks),
    ("class repeats", repeated_class_is_block),
    ("structure repeats", repeated_structure_is_block),
    ("place repeats", repeated_place_is_block),
    ("any whole", any_whole_are_blocks),
    ("layer", layers_are_blocks),
    # What the plan tells of the rest.
    ("tokens", sequences_are_left_out),
    ("passed over", repeated_are_told),
    ("rest", rest_is_settled),
)


def decide(survey: Survey) -> Table:
    """The verdicts on the candidates of a network, once every rule has spoken."""
    table = Table()
    for _, rule in RULES:
        table = table.after(rule(survey, table))
    return table
