"""Rows of a sweep: one line of JSON a network, each from a child process with a memory limit."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import resource
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torchvision

import rlawrap

Row = dict[str, Any]
GIB = 1024**3


def _child(work: Callable[[], Row], row: Row, limit: int, answer: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        row = work()
    except MemoryError:
        row["error"] = f"more than {limit // GIB} GiB of memory"
    except Exception as error:
        memory = "allocate memory" in str(error)
        row["error"] = f"more than {limit // GIB} GiB of memory" if memory else repr(error)[:500]
        row["traceback"] = traceback.format_exc()[-3000:]
    answer.send(row)


def run(work: Callable[[], Row], row: Row, *, limit: int, seconds: float) -> Row:
    """The row that `work` makes; whatever happens to its process becomes an error in `row`."""
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, row, limit, its))
    process.start()
    its.close()
    if not mine.poll(seconds):
        process.kill()
        row["error"] = f"no answer in {seconds:g} s"
    else:
        try:
            row = mine.recv()
        except EOFError:
            process.join()
            row["error"] = f"its process ended with code {process.exitcode}"
    process.join()
    return row


def options(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The parsed arguments, those that every sweep has with them; the log's folder is there."""
    parser.add_argument("--report", type=Path, help="write the page here")
    parser.add_argument("--fresh", action="store_true", help="forget earlier rows")
    given = parser.parse_args(arguments)
    given.log.parent.mkdir(parents=True, exist_ok=True)
    if given.fresh:
        given.log.unlink(missing_ok=True)
    return given


def warm_up() -> None:
    """Import in the parent what a first rewrite imports, or every child would do it again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rlawrap.apply(torchvision.models.resnet18(), k=2)
    gc.collect()
    gc.freeze()


def read_rows(log: Path) -> dict[str, Row]:
    """Rows by name; a line cut short by an interruption is left out."""
    rows: dict[str, Row] = {}
    if log.exists():
        for line in log.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                row = json.loads(line)
                rows[row["name"]] = row
    return rows


def add_row(log: Path, row: Row) -> None:
    """One more line, which a process that is killed next has written."""
    with log.open("a") as file:
        file.write(json.dumps(row) + "\n")
