"""How many networks ended how, with the smallest example of every refusal and failure."""

from __future__ import annotations

import re
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.fuzz.invariants import Outcome, check
from tests.fuzz.spec import Case


@dataclass
class Kept:
    """One kind of refusal or failure: how often, and its smallest example."""

    case: Case
    text: str
    times: int = 0


class Tally:
    """Counts outcomes; `failed` keeps what is no `RLAError`, `refused` what is one."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.refused: dict[str, Kept] = {}
        self.failed: dict[str, Kept] = {}
        self.start = time.monotonic()

    @classmethod
    def of_parts(cls, parts: Sequence[Tally]) -> Tally:
        """One tally of several, each of other networks."""
        whole = cls()
        whole.start = min(part.start for part in parts)
        for part in parts:
            whole.counts += part.counts
            for mine, its in ((whole.refused, part.refused), (whole.failed, part.failed)):
                for key, kept in its.items():
                    cls._keep(mine, key, kept.case, kept.text, kept.times)
        return whole

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def share_refused(self) -> float:
        """Of the networks that work at all, the share that `apply` refused, whatever was done."""
        works = self.total - self.counts["invalid"]
        others = sum(self.counts[kind] for kind in ("rewritten", "advised", "hopeless", "failed"))
        return (works - others) / max(1, works)

    def check(self, case: Case, *, go_on: bool = False) -> None:
        """Check one case and count it; a failure is raised unless told to go on."""
        try:
            outcome = check(case)
        except Exception as error:
            if not go_on:
                raise
            outcome = Outcome("failed")
            first = f"{type(error).__name__}: {error}".splitlines()[0][:160]
            self._keep(self.failed, first, case, traceback.format_exc())
        self.counts[outcome.kind] += 1
        if outcome.message:
            key = re.sub(r"\d+", "N", f"{outcome.kind}: {outcome.message[:160]}")
            self._keep(self.refused, key, case, outcome.message)

    @staticmethod
    def _keep(where: dict[str, Kept], key: str, case: Case, text: str, times: int = 1) -> None:
        known = where.setdefault(key, Kept(case, text))
        known.times += times
        if len(repr(case)) < len(repr(known.case)):
            known.case, known.text = case, text

    def line(self) -> str:
        seconds = time.monotonic() - self.start
        counted = ", ".join(f"{n} {kind}" for kind, n in self.counts.most_common())
        return f"{self.total} networks in {seconds:.0f} s: {counted}"

    def report(self) -> str:
        """Counts, then every refusal and failure with its smallest example."""
        lines = [self.line(), f"refused: {100 * self.share_refused:.1f}% of those that work"]
        for title, kinds in (("refusal", self.refused), ("failure", self.failed)):
            for kept in sorted(kinds.values(), key=lambda k: -k.times):
                lines += ["", f"{title}, {kept.times} times: {kept.text}", repr(kept.case)]
        return "\n".join(lines)
