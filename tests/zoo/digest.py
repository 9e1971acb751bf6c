"""`python -m tests.zoo.digest`: the plan of every network, and what differs from the committed one.

`tests/zoo/digests.json` holds `Plan.digest` of every network of the zoo with the versions of the
libraries they come from. A change of discovery must leave it as it is, or name each difference.
The plans themselves are kept in `--log`, so that a difference can be read. `--write` commits the
new digests to the file.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import multiprocessing
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

import rlawrap
from tests.zoo.nets import Net, all_nets
from tests.zoo.rows import read_rows
from tests.zoo.sweep import chosen

DIGESTS = Path(__file__).parent / "digests.json"
LIBRARIES = ("torchvision", "timm")


def versions() -> dict[str, str]:
    """The versions of the libraries whose networks these are."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


@functools.cache
def _zoo() -> dict[str, Net]:
    return {net.name: net for net in all_nets()}


def plan_row(name: str) -> dict[str, Any]:
    """The plan of one network with its digest, or the message of its refusal."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    row: dict[str, Any] = {"name": name}
    try:
        plan = rlawrap.inspect(_zoo()[name].build())
    except rlawrap.RLAError as error:
        return {**row, "digest": "refused", "refused": str(error)}
    return {**row, "digest": plan.digest, "plan": plan.to_dict()}


def main(arguments: list[str] | None = None) -> int:
    """The command; returns 1 if a digest differs from the committed one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", help="globs over library/family/name; all if none")
    parser.add_argument("--log", type=Path, default=Path(".zoo/plans.jsonl"))
    parser.add_argument("--fresh", action="store_true", help="forget earlier plans")
    parser.add_argument("--write", action="store_true", help=f"write {DIGESTS.name}")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args(arguments)
    given.log.parent.mkdir(parents=True, exist_ok=True)
    if given.fresh:
        given.log.unlink(missing_ok=True)
    rows = read_rows(given.log)
    names = [net.name for net in chosen(given.patterns, None)]
    todo = [name for name in names if name not in rows]
    # A process for a few networks each: what one of them takes of memory goes with it.
    spawn = multiprocessing.get_context("spawn")
    with given.log.open("a") as log, spawn.Pool(given.processes, maxtasksperchild=40) as pool:
        for i, row in enumerate(pool.imap_unordered(plan_row, todo)):
            rows[row["name"]] = row
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(f"[{i + 1}/{len(todo)}] {row['name']} {row['digest']}", flush=True)
    digests = {name: rows[name]["digest"] for name in names}
    if given.write:
        content = {"versions": versions(), "digests": digests}
        DIGESTS.write_text(json.dumps(content, indent=1) + "\n")
        return 0
    kept = json.loads(DIGESTS.read_text())
    if kept["versions"] != versions():
        print(f"the committed digests are of {kept['versions']}, these of {versions()}")
    differ = [name for name in names if digests[name] != kept["digests"].get(name)]
    print("\n".join(["differ:", *differ]) if differ else f"{len(names)} plans as committed")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
