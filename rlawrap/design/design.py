"""Design: the whole rewrite as data, every layer and where it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from rlawrap.cells import Cell
from rlawrap.config import RLAConfig
from rlawrap.design.paths import Path
from rlawrap.flow.geometry import Step
from rlawrap.flow.references import References
from rlawrap.plan import Block, Plan


@dataclass
class Entry:
    """One injection: the layers of its path, and the reference of the layer it adds to."""

    name: str
    target: str
    path: Path
    #: What of the main path its layers read: references, and what is taken of each node.
    reads: list[tuple[str, Callable[[fx.Node], Any]]] = field(default_factory=list)
    #: In train mode, where the layer runs elsewhere: h's way to the last layer of `path`.
    trained: Path | None = None
    #: Of the layers of `path` those that it passes before, by their names.
    shared: tuple[str, ...] = ()
    #: Whether the layer reads a detached value, so that no gradient of its may pass on into h.
    detached: bool = False
    #: Of a head the block whose h joins it.
    after: int = -1

    @classmethod
    def of(cls, name: str, target: str, path: Path, refs: References) -> Entry:
        reads = [(refs.name(reading.node), reading.take) for reading in path.readings]
        return cls(name, target, path, reads)


@dataclass
class BlockDesign:
    """One block, resolved: all references, sizes and sharing known."""

    index: int
    block: Block
    parent: int | None
    input: str
    input_channels_last: bool
    source: str
    channels: int
    channels_last: bool
    entries: list[Entry]
    bring: list[Step]
    down: list[Step]
    source_steps: list[Step]
    cell_key: str
    input_key: str
    updates: bool = True


@dataclass
class Design:
    """The whole rewrite as data: `modules` builds it, `edit` writes it into graphs."""

    config: RLAConfig
    plan: Plan
    dims: int
    cell: Cell
    steps: list[BlockDesign]
    head: list[Entry] = field(default_factory=list)
    head_norm: bool = False
    head_act: str = "none"
    notes: list[str] = field(default_factory=list)
    #: Notes on entries that the plan lists and h cannot reach, or enters in vain.
    unreached: list[str] = field(default_factory=list)

    def head_state(self, entry: Entry) -> str:
        """The key of the h that joins a head; heads of one key share its norm and activation.

        It is empty for the last block's. A detached h has a norm of its own, which then learns from
        the heads that read it, and from nothing else.
        """
        block = "" if entry.after == len(self.steps) - 1 else str(entry.after)
        return f"{block}_detached".lstrip("_") if entry.detached else block
