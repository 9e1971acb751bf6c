"""`python -m tests.zoo.sweep`: build, rewrite, check and drop every network, one at a time.

Each runs in a child process of its own with a memory limit, and leaves one line of JSON; a second
run goes on where the first stopped. `--report FILE` writes the table when all are done.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.zoo.nets import Net, all_nets
from tests.zoo.report import write_report
from tests.zoo.rows import GIB, add_row, options, read_rows, run, warm_up
from tests.zoo.soundness import check


def chosen(patterns: list[str], per_family: int | None) -> list[Net]:
    """Networks whose `library/family/name` fits a pattern; some of each family, evenly spread."""
    nets = [n for n in all_nets() if not patterns or _fits(n.name, patterns)]
    if per_family is None:
        return nets
    groups: dict[str, list[Net]] = defaultdict(list)
    for net in nets:
        groups[net.label].append(net)
    picked: list[Net] = []
    for group in groups.values():
        steps = max(1, per_family - 1)
        picked += [
            group[i] for i in sorted({j * (len(group) - 1) // steps for j in range(per_family)})
        ]
    return picked


def _fits(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, p) or p in name.split("/") for p in patterns)


def _line(row: dict[str, Any]) -> str:
    if "error" in row or "refused" in row:
        text = f"FAILED {row['error']}" if "error" in row else f"refused: {row['refused']}"
        return f"{row['name']}: {text[:300]}"
    bad = {k: v for k, v in row.get("checks", {}).items() if v != "ok"}
    parts = [f"{row['blocks']}/{row['expected']} blocks", "exact" if row["exact"] else "NOT EXACT"]
    parts.append(f"UNSOUND {bad}" if bad else "sound" if "checks" in row else "")
    parts.append(f"{row['apply_s']} s")
    if not row["exact"]:
        parts.append(f"missing {row['missing'][:4]} extra {row['extra'][:4]}")
    if row["not_entered"]:
        parts.append(f"{len(row['not_entered'])} not entered")
    return f"{row['name']}: " + ", ".join(p for p in parts if p)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns 1 if a network failed a check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", help="globs over library/family/name; all if none")
    parser.add_argument("--log", type=Path, default=Path(".zoo/rows.jsonl"))
    parser.add_argument("--per-family", type=int, help="only so many of each family")
    parser.add_argument("--only-blocks", action="store_true", help="plan, do not run")
    parser.add_argument("--memory", type=int, default=20, help="GiB for one network")
    parser.add_argument("--seconds", type=float, default=3600, help="for one network")
    given = options(parser, arguments)
    rows = read_rows(given.log)
    nets = chosen(given.patterns, given.per_family)
    warm_up()
    for i, net in enumerate(nets):
        before = rows.get(net.name, {})
        if "checks" in before or "refused" in before or (given.only_blocks and before):
            continue
        row = run(
            functools.partial(check, net, only_blocks=given.only_blocks),
            {"name": net.name, "label": net.label, "kind": net.family.kind},
            limit=given.memory * GIB,
            seconds=given.seconds,
        )
        rows[net.name] = row
        add_row(given.log, row)
        print(f"[{i + 1}/{len(nets)}] {_line(row)}", flush=True)
    done = [rows[n.name] for n in nets if n.name in rows]
    if given.report:
        few = f" (at most {given.per_family} of each family)" if given.per_family else ""
        write_report(given.report, done, len(nets), few)
    failed = [
        r for r in done if "error" in r or not r.get("sound", True) or not r.get("exact", True)
    ]
    print(f"{len(done)} networks, {len(failed)} with a failure")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
