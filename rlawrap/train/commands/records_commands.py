"""The commands that look at runs: `rlawrap runs`, `rlawrap best` and `rlawrap plot`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rlawrap.errors import TrainError
from rlawrap.train.config.naming import network_of
from rlawrap.train.records.plot import FORMATS, plot_runs
from rlawrap.train.records.runs import (
    find_runs,
    judged_by,
    loading_line,
    read_run,
    runs_table,
    shown,
)


def runs_command(
    folder: Annotated[Path, typer.Argument(help="folder to look in, at any depth")] = Path("runs"),
) -> None:
    """List the runs below a folder as a table."""
    from rich.console import Console

    records = find_runs(
        folder, damaged=lambda error: print(f"left out: {error}", file=sys.stderr, flush=True)
    )
    if not records:
        raise TrainError(f"{folder}: no runs in it or below.")
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a log or a pipe has no width to keep to
    console.print(runs_table(records, folder))


def best_command(
    run: Annotated[list[Path], typer.Argument(help="run folders", metavar="RUN...")],
) -> None:
    """Show the best epoch of runs, its checkpoint, and how to load it."""
    for path in run:
        record = read_run(path)
        best, key = record.best, record.judged
        if best is None:
            raise TrainError(f"{path}: no epoch of this run has been judged yet.")
        average = " of the averaged weights" if key else ""
        print(f"{path}: {network_of(record.config)}, epoch {best['epoch'] + 1}")
        print(f"  {_figures(record.task, best, key)}{average}")
        if record.folder.best_checkpoint.is_file():
            print(f"  {record.folder.best_checkpoint}")
            print(f"  {loading_line(path)}")


def _figures(task: str, best: dict[str, Any], key: str) -> str:
    if task == "classification":
        return (
            f"top-1 {best[key + 'top1']:.2f} %   top-5 {best[key + 'top5']:.2f} %   "
            f"loss {best[key + 'loss']:.4f}"
        )
    return "   ".join(f"{name} {shown(best[key + name])}" for name in judged_by(best))


def plot_command(
    run: Annotated[list[Path], typer.Argument(help="run folders", metavar="RUN...")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="path without ending; default: curves, by the runs"),
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="png, svg, pdf; may be repeated")
    ] = None,
) -> None:
    """Draw loss, top-1, top-5 and learning rate of runs, over each other."""
    for path in plot_runs(run, output, formats or FORMATS):
        print(path)
