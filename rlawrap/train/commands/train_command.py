"""The commands `rlawrap train` and `rlawrap recipe`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from rlawrap.streams import steady_output
from rlawrap.train.commands.launch import Launch, launch
from rlawrap.train.commands.options import (
    DataArgument,
    OptionsCommand,
    config_from_options,
    with_config_options,
)
from rlawrap.train.config.recipes import RECIPES, get_recipe
from rlawrap.train.loop import engine
from rlawrap.train.network.build import check_network
from rlawrap.train.network.optimizers import choose_optimizer
from rlawrap.train.tasks.find import resolved

#: A group of options in --help.
PROCESSES = "Processes"

train_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
recipe_app = typer.Typer(
    help="Training recipes by name.", no_args_is_help=True, add_completion=False
)


@train_app.command(cls=OptionsCommand)
@with_config_options
def train(
    *,
    data: DataArgument = None,
    recipe: Annotated[str | None, typer.Option(help="start from this recipe")] = None,
    config: Annotated[
        str | None, typer.Option(help="start from this config: JSON, YAML or TOML; or JSON text")
    ] = None,
    nproc: Annotated[
        str | None,
        typer.Option(
            help="start that many processes by torchrun; 'auto': one per GPU",
            rich_help_panel=PROCESSES,
        ),
    ] = None,
    nnodes: Annotated[
        str, typer.Option(help="number of nodes, or MIN:MAX", rich_help_panel=PROCESSES)
    ] = "1",
    rdzv_endpoint: Annotated[
        str | None, typer.Option(help="HOST:PORT where the nodes meet", rich_help_panel=PROCESSES)
    ] = None,
    rdzv_id: Annotated[
        str, typer.Option(help="name of the run, the same on all nodes", rich_help_panel=PROCESSES)
    ] = ("rlawrap"),
    max_restarts: Annotated[
        int,
        typer.Option(
            help="how often all start again after a process failed", rich_help_panel=PROCESSES
        ),
    ] = 3,
    dry_run: Annotated[bool, typer.Option(help="print the configuration and stop")] = False,
    **options: Any,
) -> None:
    """Train a network, in one process or by torchrun in many; stop and resume at any moment."""
    chosen = config_from_options({**options, "data": data}, recipe=recipe, base=config)
    chosen = resolved(chosen)
    if dry_run:
        check_network(chosen)
        choose_optimizer(chosen)
        print(json.dumps(chosen.to_dict(), indent=1))
        return
    if nproc is not None or nnodes != "1" or rdzv_endpoint is not None:
        how = Launch(
            nproc=nproc or "auto",
            nnodes=nnodes,
            endpoint=rdzv_endpoint,
            run_id=rdzv_id,
            max_restarts=max_restarts,
        )
        with steady_output():
            code = launch(chosen, how)
        raise typer.Exit(code)
    with steady_output():
        engine.train(chosen)


@recipe_app.command("list")
def list_recipes() -> None:
    """The recipes there are."""
    for recipe in RECIPES.values():
        print(f"{recipe.name:24} {recipe.source}")


@recipe_app.command("show")
def show_recipe(name: Annotated[str, typer.Argument(help="a name from `recipe list`")]) -> None:
    """A recipe as JSON: what it sets, and the whole configuration that comes of it."""
    recipe = get_recipe(name)
    config = recipe.config().to_dict()
    sets = {field: config[field] for field in recipe.values}
    text = {"recipe": recipe.name, "source": recipe.source, "sets": sets, "config": config}
    print(json.dumps(text, indent=1))
