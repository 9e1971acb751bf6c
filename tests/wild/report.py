"""Rows of the sweep -> docs/wild.md: totals, packages, what fails and why, and every network."""

from __future__ import annotations

import importlib.metadata
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.wild.soundness import REFUSED
from tests.zoo.report import share, write_page

Row = dict[str, Any]

HEAD = """# In the wild

Convolutional networks of other people's packages: classifiers, decoders, autoencoders, detectors,
super-resolution, compression, audio, EEG and video, with random weights and in small. Each is
rewritten by `rlawrap.apply(model, k=4)` and checked. `make wild` writes this page.

- **At once**: the first call is accepted, and sound. Where a network takes something else than one
  image whose size can be guessed, that call gives `example_input=`; how many need it is told.
- **In two calls**: the first call is refused, or its network refuses the example, and the call that
  the message names is accepted and sound: `rlawrap.apply(model, at='part')`, `blocks=`,
  `leaf_modules=`, or `example_input=` where the size was guessed.
- **Sound**: base keys and shapes are a prefix of the new state dict; same outputs in eval mode
  (relative error below 1e-5), for a larger batch, a larger and an odd size too where the network
  takes them; same outputs in training mode for the same random state, and the same running
  statistics after it; a finite, non-zero gradient for every parameter of h at the second step.
- **Blocks**: found / expected, which are the modules of the architecture's own block classes, as
  the lists in `tests/wild/nets` name them. *Exact* means the same module paths.
"""


def _text(message: str) -> str:
    """A message on one line, with files by their names within their packages."""
    return re.sub(r"\S*/site-packages/", "", " ".join(message.split()))


def state(row: Row) -> str:
    """What became of one network, in a word or two."""
    if "error" in row:
        return "error"
    if "calls" not in row:
        return "refused"
    if not row["sound"]:
        return "no"
    return {"model": "at once", "example": "at once, example", "second": "second call"}[
        row["calls"]
    ]


def _bad(row: Row) -> dict[str, str]:
    return {k: v for k, v in row.get("checks", {}).items() if v != "ok"}


def one_line(row: Row) -> str:
    """A row for the terminal."""
    text = f"{row['name']}: {state(row)}"
    if "error" in row:
        return f"{text} {row['error'][:300]}"
    if "refused" in row:
        return f"{text}: {row['refused'][:300]}"
    bad = _bad(row)
    parts = [text, f"{row['blocks']} blocks", f"{row['apply_s']} s"]
    if "exact" in row:
        parts[1] = f"{row['blocks']}/{row['expected']} blocks"
        if not row["exact"]:
            parts.append(f"missing {row['missing'][:3]} extra {row['extra'][:3]}")
    if bad:
        what = "other sizes" if row["sound"] else "UNSOUND"
        parts.append(f"{what} {bad}")
    return ", ".join(parts)


def _table(groups: dict[str, list[Row]]) -> list[str]:
    lines = [
        "| networks | at once | in two calls | refused | other output, error | exact | blocks |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in groups.items():
        states = [state(row) for row in rows]
        once = sum(s.startswith("at once") for s in states)
        twice = once + states.count("second call")
        refused = states.count("refused")
        wrong = sum(other_output(row) for row in rows)
        known = [row for row in rows if "exact" in row]
        exact = share(sum(row["exact"] for row in known), len(known)) if known else "-"
        blocks = sum(row.get("blocks", 0) for row in rows)
        lines.append(
            f"| {name} | {share(once, len(rows))} | {share(twice, len(rows))} | {refused} "
            f"| {wrong} | {exact} | {blocks} |"
        )
    return lines


def other_output(row: Row) -> bool:
    """Whether a rewritten network computes something else than its base, or does not run."""
    return any(
        not verdict.startswith(("ok", REFUSED))
        for what, verdict in row.get("checks", {}).items()
        if what not in ("keys", "gradients")
    )


def _failures(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        reasons = [row[key] for key in ("error", "refused", "refused_part") if key in row]
        reasons += [f"{k}: {v}" for k, v in _bad(row).items() if not v.startswith(REFUSED)]
        if reasons:
            lines.append(f"- `{row['name']}`: {state(row)}: {_text('; '.join(reasons))}")
    return lines or ["None."]


def _second(rows: list[Row]) -> list[str]:
    lines = [
        f"- `{row['name']}`: {row.get('part') or '`example_input=`'}, after: "
        f"{_text(row['refusals'][-1])}"
        for row in rows
        if row.get("calls") == "second"
    ]
    return lines or ["None."]


def _sizes(rows: list[Row]) -> list[str]:
    lines = [
        f"- `{row['name']}`: {', '.join(k for k, v in _bad(row).items() if v.startswith(REFUSED))}"
        for row in rows
        if any(v.startswith(REFUSED) for v in _bad(row).values())
    ]
    return lines or ["None."]


def _inexact(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        if row.get("exact", True):
            continue
        parts = []
        if row["missing"]:
            parts.append(f"{len(row['missing'])} missing ({row['missing'][0]}, …)")
        if row["extra"]:
            parts.append(f"{len(row['extra'])} others ({row['extra'][0]}, …)")
        lines.append(f"- `{row['name']}`: {', '.join(parts)}")
    return lines or ["None."]


def _networks(rows: list[Row]) -> list[str]:
    lines = ["| network | blocks | exact | sound | s |", "|---|---|---|---|---|"]
    for row in rows:
        blocks = str(row.get("blocks", "-"))
        if "expected" in row:
            blocks += f" / {row['expected']}"
        exact = "-" if "exact" not in row else "yes" if row["exact"] else "no"
        lines.append(
            f"| {row['name']} | {blocks} | {exact} | {state(row)} | {row.get('apply_s', '-')} |"
        )
    return lines


def _versions(packages: list[str]) -> str:
    versions = []
    for package in ("torch", *packages):
        try:
            versions.append(f"{package} {importlib.metadata.version(package).split('+')[0]}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(versions)


def write_report(path: Path, rows: list[Row], total: int) -> None:
    """Write the page; it says how many networks the sweep has not reached."""
    packages: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        packages[row["name"].split("/")[0]].append(row)
    reached = f"{len(rows)} networks of {total}" if len(rows) < total else f"{total} networks"
    given = sum(state(row) == "at once, example" for row in rows)
    parts = [
        HEAD,
        f"{reached}, of {len(packages)} packages; {_versions(list(packages))}. Of those sound "
        f"at once {given} take `example_input=`.",
        "## Totals", *_table({"all": rows, **packages}),
        "## What fails", *_failures(rows),
        "## Second calls", *_second(rows),
        "## Other sizes that are refused",
        "The forward asks for the size and goes another way; the rewritten network says so when it "
        "is given one.",
        *_sizes(rows),
        "## Blocks other than the architecture's own classes", *_inexact(rows),
        "## Every network", *_networks(rows),
    ]  # fmt: skip
    write_page(path, parts)
