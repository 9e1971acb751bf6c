"""The command `rlawrap ablate`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rlawrap.cells import list_cells
from rlawrap.errors import ConfigError
from rlawrap.network_options import parse_assignments
from rlawrap.streams import steady_output
from rlawrap.train.ablation.grid import check_grid, dry_run, make_grid
from rlawrap.train.ablation.jobs import run_grid
from rlawrap.train.ablation.report import write_report
from rlawrap.train.commands.options import (
    DataArgument,
    OptionsCommand,
    config_from_options,
    with_config_options,
)

LISTS = frozenset({"--k", "--cell", "--source", "--grid"})


def repeat_options(arguments: Sequence[str], names: Collection[str] = LISTS) -> list[str]:
    """Write a list after an option as the option repeated, which is all that click can read.

    >>> repeat_options(["builtin", "--k", "0", "8", "--epochs", "3"])
    ['builtin', '--k', '0', '--k', '8', '--epochs', '3']
    """
    out: list[str] = []
    option, values = "", 0
    for argument in arguments:
        if argument.startswith("--"):
            option, values = argument if argument in names else "", 0
        elif option:
            values += 1
            if values > 1:
                out.append(option)
        out.append(argument)
    return out


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """NAME=VALUE,VALUE for each field that the grid goes over.

    >>> parse_grid(["share=stage,network", "kernel=3,5"])
    {'share': ['stage', 'network'], 'kernel': [3, 5]}
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise ConfigError(f"--grid {text!r}: write NAME=VALUE,VALUE, such as share=stage,none.")
        grid[name] = [parse_assignments([f"v={value}"])["v"] for value in values.split(",")]
    return grid


class ListCommand(OptionsCommand):
    """A command whose `LISTS` options take several values: `--k 0 4 8`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeat_options(args))


ablate_app = typer.Typer(add_completion=False)


@ablate_app.command(cls=ListCommand)
@with_config_options
def ablate_command(
    *,
    data: DataArgument = None,
    k: Annotated[
        list[int], typer.Option("--k", help="channels of the hidden state; 0: the plain network")
    ],
    cell: Annotated[
        list[str] | None,
        typer.Option("--cell", help=f"recurrent cells: {', '.join(list_cells())}; default: conv"),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source", help="what the cells read: output, branch, input; default: output"
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid", help="any other field of RLAConfig, as share=stage,network; several allowed"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="runs of each network, with seeds from --seed on")] = 3,
    jobs: Annotated[int, typer.Option(help="runs at once")] = 1,
    recipe: Annotated[str | None, typer.Option(help="start from this recipe")] = None,
    config: Annotated[
        str | None, typer.Option(help="start from this config: JSON, YAML or TOML; or JSON text")
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="print a command for each run and stop")
    ] = False,
    **options: Any,
) -> None:
    """Train a grid of networks over k and other options of h; write a table and plots.

    --k, --cell and --source take several values: --k 0 4 8. --arch takes any network; one that is
    not of the library gets its hidden state by `rlawrap.apply`.

    Runs that are finished are skipped, so the same command goes on after a stop, and makes the
    report of runs done elsewhere.
    """
    chosen = config_from_options({**options, "data": data}, recipe=recipe, base=config)
    if options["output"] is None:
        chosen = chosen.replace(output="runs/ablation")
    runs = make_grid(
        chosen,
        ks=k,
        cells=cell or ["conv"],
        sources=source or ["output"],
        options=parse_grid(grid or []),
        seeds=seeds,
    )
    check_grid(runs)
    output = Path(chosen.output)
    if dry:
        commands = dry_run(runs)
        print("\n".join(commands))
        print(f"{len(commands)} of {len(runs)} runs are not finished", file=sys.stderr)
        return
    with steady_output():
        run_grid(runs, jobs=jobs, output=output)
        written = write_report(runs, output)
        print(f"\n{(output / 'results.md').read_text()}")
        print("\n".join(map(str, written)))
