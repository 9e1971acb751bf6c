"""What `fuse` did to a network, and what it left and why."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class FuseStep:
    """One thing that was done, or left. what: its kind. where: the layer. why: the reason."""

    what: str
    where: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class FuseReport:
    """What `fuse` did (`done`) and left (`kept`), and how many operations there are.

    target: what the network was fused for. before, after: operations of the network's graph.
    """

    target: str
    done: tuple[FuseStep, ...]
    kept: tuple[FuseStep, ...]
    before: int
    after: int

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    def to_json(self) -> str:
        """All of it as JSON.

        >>> step = FuseStep("norm folded", "bn1")
        >>> FuseReport(target="eager", done=(step,), kept=(), before=3, after=2).to_json()[:41]
        '{"target": "eager", "done": [{"what": "no'
        """
        return json.dumps(self.to_dict())

    def __str__(self) -> str:
        lines = [f"fused for {self.target}: {self.before} operations became {self.after}"]
        for what, number in Counter(step.what for step in self.done).items():
            lines.append(f"  {number:4d}  {what}")
        reasons: dict[tuple[str, str], list[str]] = {}
        for step in self.kept:
            reasons.setdefault((step.what, step.why), []).append(step.where)
        if reasons:
            lines.append("left as it was:")
        for (what, why), places in reasons.items():
            shown = ", ".join(places[:3]) + (", ..." if len(places) > 3 else "")
            lines.append(f"  {len(places):4d}  {what}: {why} ({shown})")
        return "\n".join(lines)
