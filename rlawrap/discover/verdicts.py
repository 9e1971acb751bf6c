"""What is decided of a candidate and why; tables of it that never change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Role(Enum):
    """What a candidate is to the plan."""

    BLOCK = "block"
    PART = "part"
    STAGE = "stage"
    TRANSITION = "transition"
    STEM = "stem"
    HEAD = "head"
    NONE = "no block"


class Reason(Enum):
    """Why: the role that it gives, its prose, and whether the plan tells it of what it leaves out.

    `{}` in the prose is what a verdict is about: a class, or the path of another module.
    """

    JOINS = Role.BLOCK, "its forward joins branches", False
    PARTS_JOIN = Role.BLOCK, "parts of it join branches", False
    LOOP_STEP = Role.BLOCK, "a step of the loop in a stage's forward", False
    OWN_STEP = Role.BLOCK, "a step of the network's own forward", False
    ONLY_PART = Role.BLOCK, "all that convolves in modules that concatenate for it", False
    SAME_CLASS = Role.BLOCK, "of the class of blocks", False
    SAME_PLACE = Role.BLOCK, "at the place of blocks", False
    KEPT_WHOLE = Role.BLOCK, "kept whole, and of a class that repeats", False
    CLASS_REPEATS = Role.BLOCK, "nothing joins, and its class repeats", False
    STRUCTURE_REPEATS = Role.BLOCK, "no module joins, and its structure repeats", False
    PLACE_REPEATS = Role.BLOCK, "nothing joins, and its place repeats", False
    LAYER = Role.BLOCK, "nothing joins or repeats but the layers", False
    CHOSEN = Role.BLOCK, "named by blocks=", False

    WRAPPER = Role.PART, "a wrapper in a larger block, {}", False
    CONTAINER = Role.PART, "a container that joins for {}", False
    LIES_INSIDE = Role.PART, "lies in {}", False
    NOT_ALONE = Role.PART, "one of several joins in one forward", False

    HOLDS_BLOCKS = Role.STAGE, "a stage: it holds blocks", True
    LOOPS = Role.STAGE, "a stage: its forward loops over steps", True
    SPANS = Role.STAGE, "joins around most of the network: a global skip", True
    HOLDS_ONE = Role.STAGE, "concatenates for the block that it holds", True
    HOLDS_SEVERAL = Role.STAGE, "concatenates for the blocks that it holds", True

    GATHERS = Role.TRANSITION, "only gathers the outputs of other blocks", True
    STANDS_BETWEEN = Role.TRANSITION, "a transition: its like are parts of larger blocks", True
    RESHAPES = Role.TRANSITION, "kept whole, and no block: changes the shape each time", True
    FIRST_OF_ALL = Role.STEM, "stem: the only {}", True
    LAST_OF_ALL = Role.HEAD, "head: the only {}", True

    FOLDS = Role.NONE, "adds linear branches that fold into one convolution", True
    WHOLE_ALONE = Role.NONE, "kept whole, and no block: the only {}", True
    UNLIKE_LAYER = Role.NONE, "no separable convolution, as all blocks are", True
    SEQUENCE = Role.NONE, "works on a sequence of tokens; h is an image", True
    NO_IMAGE = Role.NONE, "returns no image", False
    HOLDS = Role.NONE, "holds blocks and joins nothing", False
    UNLIKE = Role.NONE, "joins nothing, and is like no block", False
    NO_JOIN = Role.NONE, "makes no join, as the blocks do; blocks= can take it", True

    def __init__(self, role: Role, prose: str, told: bool) -> None:
        self.role, self.prose, self.told = role, prose, told


@dataclass(frozen=True)
class Verdict:
    """What one rule says of one candidate."""

    reason: Reason
    #: A class, or the path of the module that it is a part of.
    about: str = ""

    @property
    def role(self) -> Role:
        return self.reason.role

    def __str__(self) -> str:
        return self.reason.prose.format(self.about)


Votes = Mapping[str, Verdict]


@dataclass(frozen=True)
class Table:
    """The verdict on each candidate that a rule has spoken of; a vote makes a new table."""

    verdicts: Votes = field(default_factory=dict)

    def after(self, votes: Votes) -> Table:
        """The table in which `votes` stand, whatever stood there before."""
        return Table({**self.verdicts, **votes}) if votes else self

    @property
    def blocks(self) -> list[str]:
        """Names of the candidates that are blocks so far."""
        return [name for name, v in self.verdicts.items() if v.role is Role.BLOCK]

    @property
    def told(self) -> list[str]:
        """Names of those that the plan names as left out, so far."""
        return [name for name, v in self.verdicts.items() if v.reason.told]
