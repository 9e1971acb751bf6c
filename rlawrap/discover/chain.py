"""Found blocks as a chain: each wired, with the one whose h it reads, and the head behind them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import fx

from rlawrap.discover.describe import find_heads
from rlawrap.discover.found import Found
from rlawrap.discover.stages import link
from rlawrap.discover.wiring import Wired, wire
from rlawrap.flow.dataflow import Flow


@dataclass(frozen=True)
class Chain:
    """The blocks in the order they run; `parents` are indices of those whose h they read."""

    wired: list[Wired]
    parents: list[int | None]
    head: list[fx.Node]

    @classmethod
    def of(cls, flow: Flow, found: list[Found], passed: Collection[fx.Node] = frozenset()) -> Chain:
        """The chain of some blocks, one at least; `passed` are layers that `find_heads` passes."""
        wired = [wire(flow, f) for f in found]
        return cls(wired, link(flow, wired), find_heads(flow, wired, passed))

    @property
    def read(self) -> bool:
        """Whether anything reads h: a block that another precedes, or a classifier."""
        return bool(self.ways)

    @property
    def ways(self) -> list[fx.Node]:
        """The layers that read h."""
        pairs = zip(self.wired, self.parents, strict=True)
        return [n for w, p in pairs if p is not None for n in w.entries] + self.head
