"""`explain=True`: every candidate with its evidence, the verdict on it and the reason."""

from __future__ import annotations

from rlawrap.discover.candidates import Candidate, Evidence
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Table


def explanation(survey: Survey, table: Table) -> str:
    """A table of all candidates, in the order in which they run."""
    listed = [*survey.candidates.values(), *(survey[n] for n in table.verdicts)]
    candidates = {c.name: c for c in listed}
    rows = [("candidate", "kind", "class", "evidence", "verdict")]
    rows += [_row(c, table) for c in candidates.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, tuple("-" * w for w in widths))  # type: ignore[arg-type]
    name = type(survey.flow.trace.root).__name__
    count = sum(c in candidates for c in table.blocks)
    lines = [f"{name}: {count} of {len(candidates)} candidates are blocks"]
    for row in rows:
        lines.append("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines)


def _row(candidate: Candidate, table: Table) -> tuple[str, str, str, str, str]:
    verdict = table.verdicts.get(candidate.name)
    said = "-" if verdict is None else f"{verdict.role.value}: {verdict}"
    known = candidate.evidence
    return candidate.name, candidate.kind.value, candidate.label, evidence_text(known), said


def evidence_text(known: Evidence) -> str:
    """What is known of a candidate, in words; what it is not goes without saying."""
    counts = (
        (known.adds, "add", "adds"),
        (known.concatenations, "concatenation", "concatenations"),
        (known.convolutions, "convolution", "convolutions"),
    )
    words = [f"{n} {one if n == 1 else many}" for n, one, many in counts if n]
    flags = (
        (known.spatial, "spatial kernel"),
        (bool(known.joins) and all(join.folds for join in known.joins), "linear"),
        (known.gathers, "concatenates its inputs"),
        (known.wraps is not None, "wraps one module"),
        (known.tokens, "on tokens"),
        (known.container, "container"),
        (known.nesting > 0, f"in {known.nesting} that join{'s' if known.nesting == 1 else ''}"),
        (known.calls > 1, f"{known.calls} calls"),
        (known.of_class > 1, f"{known.of_class} of its class"),
        (known.repeats > 1 and known.at_place > 1, f"{known.at_place} at its place"),
    )
    return ", ".join([*words, *(text for holds, text in flags if holds)])
