"""The commands `rlawrap train`, `rlawrap recipe` and `rlawrap evaluate`.

`python -m rlawrap.train` takes the options of `rlawrap train`; torchrun starts that in every
process.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from rlawrap.errors import RLAError
from rlawrap.train.options import config_from_options, option_parameters, parse_assignments

recipe_app = typer.Typer(help="Training recipes by name.", no_args_is_help=True)

DataArgument = Annotated[
    str | None,
    typer.Argument(help="data set: builtin, fashion-mnist, cifar10, cifar100, or a folder"),
]


def with_config_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each field of `TrainConfig`, after its own parameters."""

    @functools.wraps(function)
    def command(**options: Any) -> Any:
        return function(**options)

    own = inspect.signature(function, eval_str=True).parameters
    parameters = [p for p in own.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters += [p for p in option_parameters() if p.name not in own]
    del command.__wrapped__  # type: ignore[attr-defined]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


@with_config_options
def train(
    *,
    data: DataArgument = None,
    recipe: Annotated[str | None, typer.Option(help="start from this recipe")] = None,
    config: Annotated[
        str | None, typer.Option(help="start from this config: a JSON file, or the text")
    ] = None,
    nproc: Annotated[
        str | None,
        typer.Option(help="start that many processes by torchrun; 'auto': one per GPU"),
    ] = None,
    nnodes: Annotated[str, typer.Option(help="number of nodes, or MIN:MAX")] = "1",
    rdzv_endpoint: Annotated[
        str | None, typer.Option(help="HOST:PORT where the nodes meet")
    ] = None,
    rdzv_id: Annotated[str, typer.Option(help="name of the run, the same on all nodes")] = (
        "rlawrap"
    ),
    max_restarts: Annotated[
        int, typer.Option(help="how often all start again after a process failed")
    ] = 3,
    dry_run: Annotated[bool, typer.Option(help="print the configuration and stop")] = False,
    **options: Any,
) -> None:
    """Train a network, in one process or by torchrun in many; stop and resume at any moment."""
    chosen = config_from_options({**options, "data": data}, recipe=recipe, base=config)
    if dry_run:
        print(json.dumps(chosen.to_dict(), indent=1))
        return
    if nproc is not None or nnodes != "1" or rdzv_endpoint is not None:
        from rlawrap.train.launch import Launch, launch

        how = Launch(
            nproc=nproc or "auto",
            nnodes=nnodes,
            endpoint=rdzv_endpoint,
            run_id=rdzv_id,
            max_restarts=max_restarts,
        )
        raise typer.Exit(launch(chosen, how))

    from rlawrap.train.engine import train as run

    run(chosen)


@recipe_app.command("list")
def list_recipes() -> None:
    """The recipes there are."""
    from rlawrap.train.recipes import RECIPES

    for recipe in RECIPES.values():
        print(f"{recipe.name:24} {recipe.source}")


@recipe_app.command("show")
def show_recipe(name: Annotated[str, typer.Argument(help="a name from `recipe list`")]) -> None:
    """A recipe as JSON: what it sets, and the whole configuration that comes of it."""
    from rlawrap.train.recipes import get_recipe

    recipe = get_recipe(name)
    config = recipe.config().to_dict()
    sets = {field: config[field] for field in recipe.values}
    text = {"recipe": recipe.name, "source": recipe.source, "sets": sets, "config": config}
    print(json.dumps(text, indent=1))


def evaluate(
    run: Annotated[
        str,
        typer.Argument(help="a run folder (its best network), a checkpoint, or weights (--arch)"),
    ],
    data: DataArgument = None,
    arch: Annotated[
        str | None, typer.Option(help="the network that plain or official weights are of")
    ] = None,
    model_arg: Annotated[
        list[str] | None, typer.Option(help="with --arch: NAME=VALUE; may be repeated")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="side of the images; default: the run's, or the data's", min=1),
    ] = None,
    data_root: Annotated[
        str | None, typer.Option(help="folder that named data sets are found in")
    ] = None,
    split: Annotated[str, typer.Option(help="test or train")] = "test",
    batch_size: Annotated[int, typer.Option(help="images at once", min=1)] = 128,
    workers: Annotated[int, typer.Option(help="loader processes; 0: none", min=0)] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    average: Annotated[bool, typer.Option(help="the averaged weights, if any")] = True,
    confusion: Annotated[bool, typer.Option(help="print the confusion matrix too")] = False,
) -> None:
    """Loss, top-1 and top-5 of a trained network, as one JSON object."""
    from rlawrap.train.loading import evaluate as judge
    from rlawrap.train.runlog import json_text

    result = judge(
        run,
        arch=arch,
        model_kwargs=parse_assignments(model_arg or []),
        image_size=image_size,
        data=data,
        data_root=data_root,
        split=split,
        batch_size=batch_size,
        workers=workers,
        device=device,
        average=average,
    )
    figures: dict[str, Any] = {**result.to_dict(), "images": result.images}
    if result.skipped:
        figures["skipped"] = result.skipped
    if confusion:
        figures["confusion"] = result.confusion.tolist()
    print(json_text(figures))


def main(arguments: list[str] | None = None) -> None:
    """`python -m rlawrap.train`: the options of `rlawrap train`, in each process of torchrun."""
    from rlawrap.train.launch import has_failed, note_failure

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(train)
    rank = os.environ.get("RANK", "0")
    if has_failed():
        _leave(2)
    try:
        app(args=arguments, prog_name="python -m rlawrap.train")
    except RLAError as error:
        note_failure(str(error))
        if not getattr(error, "told_by_first", False):
            _say(error, rank)
        _leave(2)
    except RuntimeError as error:
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not _is_lost_peer(error):
            raise
        reason = re.sub(r"^\[\S+\]\s*", "", str(error).splitlines()[0])  # gloo's source line
        _say(f"process {rank} lost another: {reason}", rank)
        _leave(1)
    except SystemExit as leaving:
        # Of click, for a second Ctrl-C, say: the others may hang, and are not waited for.
        _leave(leaving.code if isinstance(leaving.code, int) else 0 if not leaving.code else 1)


def _say(error: object, rank: str) -> None:
    prefix = "rlawrap train" if rank == "0" else f"rlawrap train (process {rank})"
    print(f"{prefix}: {error}", file=sys.stderr, flush=True)


def _leave(code: int) -> None:
    """End this process without waiting for others that may be gone."""
    sys.stdout.flush()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os._exit(code)
    sys.exit(code)


def _is_lost_peer(error: RuntimeError) -> bool:
    import torch.distributed as dist

    words = ("Connection closed", "Connection reset", "gloo", "NCCL", "Broken pipe", "Timed out")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
