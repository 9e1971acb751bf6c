"""The options that name a network at the command line, the same for every command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from rlawrap.errors import ConfigError
from rlawrap.networks import build_network

NetworkArgument = Annotated[
    str,
    typer.Argument(
        help="a name of `rlawrap models`, a torchvision or timm network (torchvision:NAME and "
        "timm:NAME say whose), or a function of yours: FILE.py:NAME, PACKAGE.MODULE:NAME"
    ),
]
#: What the options stand under in a command's help.
PANEL = "The network"
RLA_HELP = "give the network a hidden state (rlawrap.apply)"
ModelArgOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model-arg",
        help="argument of the network's builder, as NAME=VALUE; may be repeated",
        rich_help_panel=PANEL,
    ),
]
PretrainedOption = Annotated[
    bool,
    typer.Option(
        "--pretrained",
        help="with the weights that torchvision or timm have",
        rich_help_panel=PANEL,
    ),
]
RlaOption = Annotated[bool, typer.Option("--rla", help=RLA_HELP, rich_help_panel=PANEL)]
KOption = Annotated[
    int | None,
    typer.Option(
        "--k", min=1, help="with --rla: channels of the hidden state", rich_help_panel=PANEL
    ),
]
RlaArgOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rla-arg",
        help="with --rla: an option of apply, as source=branch; may be repeated",
        rich_help_panel=PANEL,
    ),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="shape of the tensor that the network takes, as 1x3x224x224 or 1x1x16000; once for "
        "each argument",
    ),
]


def parse_assignments(
    texts: Sequence[str], option: str = "--model-arg", example: str = "k=16"
) -> dict[str, Any]:
    """NAME=VALUE pairs; a value is JSON, or text when it is not.

    >>> parse_assignments(["k=8", "init=identity", "head=true"])
    {'k': 8, 'init': 'identity', 'head': True}
    """
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{option} {text!r}: write NAME=VALUE, such as {example}.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def rla_options(
    rla: bool | None, k: int | None, rla_arg: Sequence[str] | None, *, before: Any = None
) -> dict[str, Any] | None:
    """What `apply` is to be told; None where the network stays as its builder makes it.

    before: the options that a recipe or a config has, which these change.
    Raises `ConfigError` for --k or --rla-arg without --rla, with what a preset is told instead.

    >>> rla_options(True, 16, ["source=branch"])
    {'k': 16, 'source': 'branch'}
    """
    given = parse_assignments(rla_arg or [], "--rla-arg")
    if k is not None:
        given["k"] = k
    if rla is False:
        return None
    if rla is None and before is None:
        if given:
            option = "--k" if k is not None else "--rla-arg"
            raise ConfigError(
                f"{option} goes with --rla, which gives any network a hidden state. A network that "
                "has one by its name (rla_...) takes it as an argument of its builder: "
                f"--model-arg {next(iter(given))}={next(iter(given.values()))}."
            )
        return None
    options = {**(before or {}), **given}
    return {name: options[name] for name in sorted(options, key=lambda n: n != "k")}


def spelled_out(
    model_arg: Sequence[str] | None,
    pretrained: bool,
    rla: bool,
    k: int | None,
    rla_arg: Sequence[str] | None,
) -> str:
    """The options as they stand in a command.

    >>> spelled_out(["width=8"], False, True, 4, None)
    ' --model-arg width=8 --rla --k 4'
    """
    words = [f"--model-arg {shlex.quote(text)}" for text in model_arg or ()]
    words += ["--pretrained"] * pretrained + ["--rla"] * rla
    words += [] if k is None else [f"--k {k}"]
    words += [f"--rla-arg {shlex.quote(text)}" for text in rla_arg or ()]
    return "".join(f" {word}" for word in words)


def open_network(
    name: str,
    *,
    model_arg: Sequence[str] | None = None,
    pretrained: bool = False,
    rla: bool = False,
    k: int | None = None,
    rla_arg: Sequence[str] | None = None,
    example_input: tuple[Tensor, ...] | None = None,
) -> nn.Module:
    """The network that the options of a command line name."""
    arguments: Mapping[str, Any] = parse_assignments(model_arg or [])
    return build_network(
        name,
        pretrained=pretrained,
        rla=rla_options(rla or None, k, rla_arg),
        example_input=example_input,
        **arguments,
    )


def parse_inputs(texts: Sequence[str] | None) -> tuple[Tensor, ...] | None:
    """Zeros of the shapes that --input says, one tensor for each argument of the network.

    >>> [x.shape for x in parse_inputs(["1x3x32x32"])]
    [torch.Size([1, 3, 32, 32])]
    """
    return tuple(torch.zeros(parse_shape(text, "--input")) for text in texts or ()) or None


def parse_shape(text: str, option: str) -> tuple[int, ...]:
    """Numbers with x between them.

    >>> parse_shape("256x320", "--size")
    (256, 320)
    """
    try:
        return tuple(int(size) for size in text.lower().split("x"))
    except ValueError:
        example = "1x3x224x224" if option == "--input" else "HxW"
        raise ConfigError(
            f"{option} {text!r}: expected a number, or numbers as {example}."
        ) from None


def parse_sides(text: str | None) -> int | tuple[int, ...] | None:
    """ "224" is one side for every axis, "256x320" one number for each."""
    if text is None:
        return None
    sides = parse_shape(text, "--size")
    return sides[0] if len(sides) == 1 else sides
