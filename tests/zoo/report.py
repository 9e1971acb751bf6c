"""Rows of the sweep -> docs/zoo.md: totals, families, failures, and a line for every network."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torchvision

Row = dict[str, Any]

HEAD = """# The zoo

Every convolutional network of torchvision and timm, rewritten by `rlawrap.apply(model, k=8)` and
checked. `make zoo` writes this page; a row says what one network did.

- **Blocks**: found / expected. Expected are the modules of the architecture's own block classes
  (`tests/zoo/truth.py`). *Exact* means the same module paths, not only the same number.
- **Sound**: on random weights with uneven norm statistics, at a small input size, in float32:
  base keys and shapes are a prefix of the new state dict; same outputs in eval mode (relative
  error below 1e-5), at an odd size too where the network takes one; same outputs in training mode
  for the same random state, and the same running statistics after it; a finite, non-zero gradient
  for every `rla.` parameter at the second step (stochastic depth off; in float64 where float32
  underflows).
- **Time**: CPU seconds for `apply`, one thread.
- *Hybrids* alternate convolution and attention. Blocks that work on a sequence of tokens rather
  than on an image are left out of the plan, which says so; they are counted under *tokens*.
"""


def share(part: int, whole: int) -> str:
    """Part / whole, and as a percentage."""
    return f"{part} / {whole}" + (f" ({100 * part / whole:.1f}%)" if whole else "")


def _state(row: Row) -> str:
    if "error" in row:
        return "error"
    if "refused" in row:
        return "refused"
    if "checks" not in row:
        return "not run"
    return "yes" if row["sound"] else "no"


def _totals(rows: list[Row]) -> list[str]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        library = row["name"].split("/")[0]
        kind = {"cnn": "CNNs", "hybrid": "hybrids with attention"}.get(row["kind"], row["kind"])
        groups[f"{library} {kind}"].append(row)
    lines = ["| networks | planned | exact | sound of those run | blocks | mean s | longest s |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, group in groups.items():
        lines.append(_summary(name, group))
    return lines


def _summary(name: str, group: list[Row]) -> str:
    n = len(group)
    planned = [r for r in group if r.get("blocks")]
    exact = sum(bool(r.get("exact")) for r in group)
    ran = [r for r in group if "checks" in r or "error" in r]
    sound = sum(bool(r.get("sound")) for r in ran)
    times = [r["apply_s"] for r in group if "apply_s" in r]
    mean = f"{sum(times) / len(times):.1f}" if times else "-"
    longest = f"{max(times):.1f}" if times else "-"
    blocks = sum(r.get("blocks", 0) for r in group)
    return (
        f"| {name} | {share(len(planned), n)} | {share(exact, n)} | {share(sound, len(ran))} "
        f"| {blocks} | {mean} | {longest} |"
    )


def _families(rows: list[Row]) -> list[str]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["label"]].append(row)
    lines = ["| family | planned | exact | sound of those run | blocks | mean s | longest s |"]
    lines.append("|---|---|---|---|---|---|---|")
    return lines + [_summary(name, group) for name, group in groups.items()]


def _failures(rows: list[Row]) -> list[str]:
    lines: list[str] = []
    for row in rows:
        reasons = []
        if "error" in row:
            reasons.append(row["error"])
        if "refused" in row:
            reasons.append(f"refused: {row['refused']}")
        if "exact" in row and not row["exact"]:
            missing, extra = row["missing"], row["extra"]
            parts = [f"{len(missing)} missing ({missing[0]}, …)"] if missing else []
            parts += [f"{len(extra)} too many ({extra[0]}, …)"] if extra else []
            reasons.append("blocks: " + ", ".join(parts))
        bad = [f"{k}: {v}" for k, v in row.get("checks", {}).items() if v != "ok"]
        if bad:
            reasons.append("; ".join(bad))
        if reasons:
            text = " ".join("; ".join(reasons).split())
            lines.append(f"- `{row['name']}`: {text}")
    return lines or ["None."]


def _unreached(rows: list[Row]) -> list[str]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for item in row.get("not_entered", ()):
            path, _, why = item.partition(": ")
            reasons[why or "no reason given"].append(f"{row['name']} {path}")
        for note in row.get("notes", ()):
            if "h does not enter" in note:
                reasons[note.split(": ", 2)[-1]].append(f"{row['name']} {note.split(': ')[0]}")
    if not reasons:
        return ["None."]
    return [
        f"- {why}: {len(places)} blocks, such as `{places[0]}`"
        for why, places in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]


def _networks(rows: list[Row]) -> list[str]:
    lines = ["| network | blocks | exact | tokens | sound | s |", "|---|---|---|---|---|---|"]
    for row in rows:
        blocks = f"{row['blocks']} / {row['expected']}" if "blocks" in row else "-"
        exact = "-" if "exact" not in row else "yes" if row["exact"] else "no"
        tokens = row.get("on_tokens") or ""
        lines.append(
            f"| {row['name']} | {blocks} | {exact} | {tokens} | {_state(row)} "
            f"| {row.get('apply_s', '-')} |"
        )
    return lines


def write_report(path: Path, rows: list[Row], total: int, scope: str = "") -> None:
    """Write the page; it says how many networks the sweep has not reached."""
    versions = [f"torch {torch.__version__}", f"torchvision {torchvision.__version__}"]
    try:
        import timm
    except ImportError:
        pass
    else:
        versions.append(f"timm {timm.__version__}")
    reached = f"{len(rows)} networks of {total}" if len(rows) < total else f"{total} networks"
    only_planned = sum("apply_s" in r and "checks" not in r for r in rows)
    if only_planned:
        reached += f", {only_planned} of them planned but not run"
    parts = [
        HEAD,
        f"{reached}{scope}; {', '.join(v.split('+')[0] for v in versions)}.",
        "## Totals", *_totals(rows),
        "## Families", *_families(rows),
        "## What fails", *_failures(rows),
        "## Blocks that h does not enter",
        "Their output still updates h.",
        *_unreached(rows),
        "## Every network", *_networks(rows),
    ]  # fmt: skip
    write_page(path, parts)


def write_page(path: Path, parts: list[str]) -> None:
    """Headings, paragraphs, and lines of tables and lists, with blank lines where Markdown asks."""
    text: list[str] = []
    for part in parts:
        heading = part.startswith("#") or not part.startswith(("|", "-"))
        if text and (heading or text[-1].startswith("#") or _kind(text[-1]) != _kind(part)):
            text.append("")
        text.append(part.rstrip("\n"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n")


def _kind(line: str) -> str:
    return line[:1] if line[:1] in "|-" else "text"
