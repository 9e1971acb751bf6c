"""Candidates for a block, each with what is known of it before any rule speaks."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

from torch import fx

from rlawrap.capture.trace import Frame
from rlawrap.discover.joins import Join
from rlawrap.discover.places import Steps


class Kind(Enum):
    """What makes something a candidate."""

    OWNER = "owner of joins"
    STEP = "step of a forward"
    CLASS = "class that repeats"
    PLACE = "place that repeats"
    WHOLE = "kept whole"
    LAYER = "layer"
    MODULE = "module"


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """Nodes that are no module's whole call: a step of a forward, or a few layers."""

    nodes: tuple[fx.Node, ...]
    output: fx.Node
    joins: tuple[Join, ...] = ()
    #: The module call that these nodes are, if they are one.
    frame: Frame | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What is known of a candidate: measured once, and nothing that a rule decides."""

    #: Joins that its own forward makes.
    joins: tuple[Join, ...] = ()
    #: Convolutions of images in one call, and whether one has a kernel of more than one pixel.
    convolutions: int = 0
    spatial: bool = False
    #: Whether it returns an image on the way to the output.
    image: bool = True
    #: A Sequential, ModuleList or ModuleDict.
    container: bool = False
    calls: int = 1
    #: Modules of its class that run.
    of_class: int = 1
    #: Its place in the tree, how many of its steps repeat, and how many stand there.
    place: Steps = ()
    repeats: int = 0
    at_place: int = 1
    #: Owners of joins around it.
    nesting: int = 0
    #: The kind of the one child that it wraps, if all that it learns lies there.
    wraps: Hashable = None
    #: Starts by concatenating what it is given, and has no spatial kernel.
    gathers: bool = False
    #: Adds sequences: images whose pixels were made one axis.
    tokens: bool = False

    @property
    def adds(self) -> int:
        return sum(join.adds for join in self.joins)

    @property
    def concatenations(self) -> int:
        return len(self.joins) - self.adds


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A module that convolves on the way to the output, or a region of the forward of one."""

    #: The path of a module; of a step that of its module with a number, as in `stage[2]`.
    name: str
    kind: Kind
    #: The module that it is, or lies in.
    path: str
    #: Its class; of a step that of the module it lies in.
    cls: type
    #: The class name that a plan shows.
    label: str
    evidence: Evidence
    region: Region | None = None
