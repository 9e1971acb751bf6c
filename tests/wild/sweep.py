"""`python -m tests.wild.sweep`: networks of other people's packages, rewritten and checked.

Each runs in a child process of its own, and leaves one line of JSON; a second run goes on where the
first stopped. `--report FILE` writes the page when all are done. Packages that are missing are told
and their networks left out: `tests/wild/requirements.txt` lists all.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import functools
import gc
import importlib
import io
import os
import pkgutil
import sys
import warnings
from pathlib import Path
from typing import Any

from tests.wild import nets
from tests.wild.network import Wild
from tests.wild.report import one_line, write_report
from tests.wild.soundness import check
from tests.zoo.rows import GIB, add_row, options, read_rows, run, warm_up


def all_nets() -> list[Wild]:
    """Everything that `make wild` sweeps, in the order of the lists' names."""
    modules = sorted(info.name for info in pkgutil.iter_modules(nets.__path__))
    lists = [importlib.import_module(f"{nets.__name__}.{name}").NETS for name in modules]
    return [net for some in lists for net in some]


def _quiet(net: Wild) -> dict[str, Any]:
    """The row, without what packages print."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return check(net)


def _import(net: Wild) -> None:
    """Build a network here, or every child would import the package again."""
    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
        net.build()
    gc.collect()
    gc.freeze()


def main(arguments: list[str] | None = None) -> int:
    """The command; returns 1 if a network failed a check or was refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", help="globs over package/name; all if none")
    parser.add_argument("--log", type=Path, default=Path(".wild/rows.jsonl"))
    parser.add_argument("--memory", type=int, default=12, help="GiB for one network")
    parser.add_argument("--seconds", type=float, default=300, help="for one network")
    given = options(parser, arguments)
    # Nothing is fetched: a network that asks for weights fails.
    os.environ.update(HF_HUB_OFFLINE="1", YOLO_OFFLINE="true", TOKENIZERS_PARALLELISM="false")
    warnings.simplefilter("ignore")
    rows = read_rows(given.log)
    chosen = [
        net
        for net in all_nets()
        if not given.patterns
        or any(fnmatch.fnmatch(net.name, p) or net.package == p for p in given.patterns)
    ]
    warm_up()
    imported: set[str] = set()
    for i, net in enumerate(chosen):
        if net.name in rows:
            continue
        if net.package not in imported:
            imported.add(net.package)
            _import(net)
        row = run(
            functools.partial(_quiet, net),
            {"name": net.name},
            limit=given.memory * GIB,
            seconds=given.seconds,
        )
        rows[net.name] = row
        add_row(given.log, row)
        print(f"[{i + 1}/{len(chosen)}] {one_line(row)}", flush=True)
    done = [rows[net.name] for net in chosen if net.name in rows]
    if given.report:
        write_report(given.report, done, len(chosen))
    failed = [row for row in done if not row.get("sound")]
    print(f"{len(done)} networks, {len(failed)} with a failure")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
