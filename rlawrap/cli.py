"""The command line. Each command is thin: it imports what it needs, calls it, and prints."""

from __future__ import annotations

import difflib
import errno
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rlawrap.errors import ConfigError, RLAError
from rlawrap.network_options import (
    InputOption,
    KOption,
    ModelArgOption,
    NetworkArgument,
    PretrainedOption,
    RlaArgOption,
    RlaOption,
    open_network,
    parse_inputs,
    parse_sides,
    rla_options,
    spelled_out,
)
from rlawrap.streams import complain

# Commands of the trainer: name -> module and the function or Typer there. A new one is a function
# in a module of `rlawrap.train.commands` and a line here.
ELSEWHERE = {
    "train": ("rlawrap.train.commands.train_command", "train_app"),
    "evaluate": ("rlawrap.train.commands.evaluate_command", "evaluate"),
    "export": ("rlawrap.train.commands.export_command", "export_command"),
    "lr-find": ("rlawrap.train.commands.lr_find_command", "lr_find_app"),
    "predict": ("rlawrap.train.commands.predict_command", "predict_command"),
    "detect": ("rlawrap.train.commands.detect_command", "detect_command"),
    "recipe": ("rlawrap.train.commands.train_command", "recipe_app"),
    "plot": ("rlawrap.train.commands.records_commands", "plot_command"),
    "best": ("rlawrap.train.commands.records_commands", "best_command"),
    "runs": ("rlawrap.train.commands.records_commands", "runs_command"),
    "ablate": ("rlawrap.train.commands.ablate_command", "ablate_app"),
    "show": ("rlawrap.train.commands.show_command", "show_command"),
    "demo": ("rlawrap.train.commands.demo_command", "demo_command"),
}


class LazyGroup(TyperGroup):
    """A group that imports the commands of `ELSEWHERE` when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except Exception as error:
            # typer itself suggests commands that are there already, and those come when asked for.
            near = difflib.get_close_matches(args[0], self.list_commands(ctx))
            if near and "Did you mean" not in str(getattr(error, "message", "")):
                raise ConfigError(
                    f"{args[0]!r}: no such command. Did you mean {' or '.join(near)}?"
                ) from None
            raise

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, attribute = ELSEWHERE[cmd_name]
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False)
            found.command()(function)
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroup,
    name="rlawrap",
    help="Recurrent layer aggregation (RLA) for any convolutional network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an `RLAError` becomes one message on stderr and exit code 2."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="rlawrap")
    except RLAError as error:
        complain(f"rlawrap: {error}")
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        complain(f"rlawrap: {error.strerror}: {error.filename}")
        sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        import rlawrap

        print(rlawrap.__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="and exit")
    ] = False,
) -> None:
    """Recurrent layer aggregation (RLA) for any convolutional network."""


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="a shell pattern, such as 'rla_*'")] = "*",
) -> None:
    """List the networks that rlawrap builds by name."""
    from rlawrap.models import list_models

    names = list_models(pattern)
    if not names:
        raise ConfigError(f"models {pattern!r}: no such name; `rlawrap models` lists them all.")
    print("\n".join(names))


@app.command()
def inspect(
    name: NetworkArgument,
    blocks: Annotated[
        list[str] | None,
        typer.Option(help="take these modules as the blocks: a path or pattern; may be repeated"),
    ] = None,
    leaf: Annotated[
        list[str] | None, typer.Option(help="keep this module whole; may be repeated")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="print every candidate for a block, and why (not)")
    ] = False,
    model_arg: ModelArgOption = None,
    pretrained: PretrainedOption = False,
    rla: RlaOption = False,
    k: KOption = None,
    rla_arg: RlaArgOption = None,
    shape: InputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the plan of a network: its blocks and stages, and where the hidden state goes."""
    import rlawrap
    from rlawrap.splice.inside import rewritten_in

    if explain and as_json:
        raise ConfigError("inspect: --explain prints a table; leave out --json.")
    options: dict[str, Any] = {"leaf_modules": tuple(leaf or ()), "explain": explain}
    if blocks:
        options["blocks"] = blocks[0] if len(blocks) == 1 else blocks
    example = parse_inputs(shape)
    model = open_network(name, model_arg=model_arg, pretrained=pretrained, example_input=example)
    if (rla or k or rla_arg) and not isinstance(model, rlawrap.RLAModel):
        steer = {key: value for key, value in options.items() if key != "explain"}
        given = rla_options(rla or None, k, rla_arg) or {}
        model = rlawrap.apply(model, **given, **steer, example_input=example)
    parts = rewritten_in(model)
    plan: rlawrap.Plan | rlawrap.Plans
    if parts:
        if explain:
            raise ConfigError("inspect: --explain is of a plain network; leave out --rla.")
        plans = {path: part.rla.plan for path, part in parts.items()}
        plan = plans.get("") or rlawrap.Plans(plans)
    else:
        plan = rlawrap.inspect(model, example_input=example, **options)
    print(json.dumps(plan.to_dict(), indent=2) if as_json else plan)


@app.command()
def cost(
    name: Annotated[
        str | None, typer.Argument(help="a network, named as for `rlawrap inspect`")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="side of the input, or its sides as HxW; default 224")
    ] = None,
    in_channels: Annotated[
        int | None, typer.Option(min=1, help="channels of the input; default: as the stem has it")
    ] = None,
    inputs: InputOption = None,
    table: Annotated[
        str | None, typer.Option(help="'paper': the published table, recomputed")
    ] = None,
    model_arg: ModelArgOption = None,
    pretrained: PretrainedOption = False,
    rla: RlaOption = False,
    k: KOption = None,
    rla_arg: RlaArgOption = None,
    as_json: JsonOption = False,
) -> None:
    """Parameters, MACs and FLOPs of a network, stage by stage, base against RLA."""
    if table is not None:
        if table != "paper" or name is not None:
            raise ConfigError("cost: --table takes 'paper', and no network beside it.")
        from rlawrap.cost.paper import paper_table

        print(paper_table())
        return
    if name is None:
        raise ConfigError("cost: name a network (`rlawrap models` lists ours), or --table paper.")
    from rlawrap.cost import cost as measure
    from rlawrap.cost.inputs import InputError

    network: Any = name
    network_options = spelled_out(model_arg, pretrained, rla, k, rla_arg)
    example = parse_inputs(inputs)
    if network_options:
        network = open_network(
            name,
            model_arg=model_arg,
            pretrained=pretrained,
            rla=rla,
            k=k,
            rla_arg=rla_arg,
            example_input=example,
        )
    try:
        result = measure(network, parse_sides(size), in_channels=in_channels, example_input=example)
    except InputError as error:
        if not error.options:
            raise
        call = f"rlawrap cost {name}{network_options} {error.options}"
        raise ConfigError(error.advising(call)) from error
    print(json.dumps(result.to_dict(), indent=2) if as_json else result)


@app.command()
def wrap(
    name: NetworkArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="the .safetensors file to write")],
    k: Annotated[int, typer.Option("--k", min=1, help="channels of the hidden state")] = 32,
    rla_arg: RlaArgOption = None,
    model_arg: ModelArgOption = None,
    pretrained: PretrainedOption = False,
    shape: InputOption = None,
) -> None:
    """Give a network a hidden state and write it, weights and plan, to a safetensors file."""
    import rlawrap

    if output.suffix != ".safetensors":
        raise ConfigError(f"wrap -o {output}: it writes safetensors; give a name that ends so.")
    model = open_network(
        name,
        model_arg=model_arg,
        pretrained=pretrained,
        rla=True,
        k=k,
        rla_arg=rla_arg,
        example_input=parse_inputs(shape),
    )
    written = rlawrap.save(model, output)
    known = rlawrap.checkpoints.read_header(written)["base"]["source"] != "custom"
    base = "" if known else ", base=the network as it was before"
    print(f"{written}: {type(model).__name__}, read by rlawrap.load({str(written)!r}{base})")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="the checkpoint to read")],
    target: Annotated[Path, typer.Argument(help="the file to write")],
    arch: Annotated[
        str | None, typer.Option(help="the official checkpoint's network, such as rla_resnet50")
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="default: as many as the checkpoint's classifier has")
    ] = None,
    k: Annotated[
        int | None, typer.Option(min=1, help="channels of h; default: the preset's")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="of a whole official detector: write it for 'mmdet3' or 'torchvision'"),
    ] = None,
) -> None:
    """An official checkpoint into ours, or ours (a .safetensors file) into an official one."""
    from rlawrap.conversion import convert_file

    told = convert_file(source, target, arch, num_classes=num_classes, k=k, to=to)
    print(target)
    for sentence in told:
        print(f"  {sentence}")


if __name__ == "__main__":
    main()
