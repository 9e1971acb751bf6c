"""`TrainConfig` as options of a command line, one for each field, with its help text."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from rlawrap.config import RLAConfig
from rlawrap.errors import ConfigError
from rlawrap.network_options import (
    PANEL,
    RLA_HELP,
    KOption,
    RlaArgOption,
    parse_assignments,
    rla_options,
)
from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.config.reading import read_config
from rlawrap.train.config.recipes import get_recipe, scaled_resize
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.opening import NAMED, default_size
from rlawrap.train.tasks.find import find_task

#: Fields that are options; `AugmentConfig` has others, without a help text, that --config sets.
AUGMENT_FIELDS = {n: f for n, f in AugmentConfig.model_fields.items() if f.description}
FIELDS = {**TrainConfig.model_fields, **AUGMENT_FIELDS}
del FIELDS["augment"], FIELDS["rla"]
#: `TrainConfig.rla` is given by three options, as for `rlawrap inspect`; a recipe's may be undone.
RLA_OPTIONS = {
    "rla": Annotated[
        bool | None,
        typer.Option("--rla/--no-rla", help=RLA_HELP, rich_help_panel=PANEL, show_default=False),
    ],
    "k": KOption,
    "rla_arg": RlaArgOption,
}

DataArgument = Annotated[
    str | None, typer.Argument(help=f"data set: {', '.join(NAMED)}, or a folder")
]

#: Where weights without a record are read: what their network is built of.
ModelArgOption = Annotated[
    list[str] | None, typer.Option(help="with --arch: NAME=VALUE; may be repeated")
]
ImportsOption = Annotated[
    list[str] | None,
    typer.Option("--import", help="file of yours that registers the network's name"),
]


class OptionsCommand(TyperCommand):
    """A command that says how an option of `RLAConfig` is given, when it has none of that name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {flag for option in self.params for flag in (*option.opts, *option.secondary_opts)}
        of_rla = {field.name for field in dataclasses.fields(RLAConfig)}
        for argument, following in zip(args, [*args[1:], ""], strict=True):
            flag, equals, value = argument.partition("=")
            name = flag.removeprefix("--").replace("-", "_")
            if flag.startswith("--") and flag not in own and name in of_rla:
                given = value if equals else following
                raise ConfigError(
                    f"{flag}: `{ctx.info_name}` has no such option. The hidden state's arguments "
                    f"go to the network's builder: --model-arg {name}={given or 'VALUE'}."
                )
        return super().parse_args(ctx, args)


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


def option_parameters() -> list[inspect.Parameter]:
    """A keyword parameter for every field, None when the user did not give the option."""
    annotations = {name: _annotation(field) for name, field in FIELDS.items()} | RLA_OPTIONS
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in annotations.items()
    ]


def config_from_options(
    options: Mapping[str, Any], *, recipe: str | None = None, base: str | None = None
) -> TrainConfig:
    """The configuration: a recipe or a config (a file, or JSON text), then the options given.

    Raises `ConfigError` for values that make no sense.
    """
    if recipe is not None and base is not None:
        raise ConfigError("--recipe and --config: give one of them.")
    config = TrainConfig()
    if recipe is None and base is None and options.get("task"):
        config = config.replace(**find_task(options["task"]).defaults)
    if recipe is not None:
        config = get_recipe(recipe).config()
    elif base is not None:
        config = read_config(base)
    given = {name: value for name, value in options.items() if value not in (None, [])}
    if "change" in given:
        changes = parse_assignments(given.pop("change"), "--change", "epochs=200")
        given |= changes
        given["change"] = tuple("augment" if n in AUGMENT_FIELDS else n for n in changes)
    if given.get("warmup_epochs") and "warmup_steps" not in given:
        given["warmup_steps"] = 0  # in place of those of the recipe or task
    augment = {name: given.pop(name) for name in AUGMENT_FIELDS if name in given}
    for name, flag in (
        ("model_kwargs", "--model-arg"),
        ("head_args", "--head-arg"),
        ("scene_augment", "--scene-augment"),
        ("opt_args", "--opt-arg"),
    ):
        if isinstance(given.get(name), list):
            given[name] = {**getattr(config, name), **parse_assignments(given[name], flag)}
    if "resize" not in augment and (resize := scaled_resize(config, given.get("image_size"))):
        augment["resize"] = resize
    rla = [given.pop(name, None) for name in RLA_OPTIONS]
    given["rla"] = rla_options(*rla, before=config.rla)
    if augment:
        data = given.get("data", config.data)
        size = given.get("image_size") or config.image_size or default_size(data)
        start = config.augment or AugmentConfig.for_size(size)
        given["augment"] = start.replace(**augment)
    return config.replace(**given)


def _annotation(field: FieldInfo) -> Any:
    """A field as typer reads it: lists for tuples and objects, the group as a panel of --help."""
    kind: Any = field.annotation
    if isinstance(kind, types.UnionType):  # all of them are "something or None"
        (kind,) = [each for each in typing.get_args(kind) if each is not type(None)]
    if typing.get_origin(kind) in (tuple, dict):
        kind = list[int] if typing.get_args(kind)[0] is int else list[str]
    extra: Any = field.json_schema_extra
    option = typer.Option(
        *filter(None, [extra["flag"]]),
        help=f"{field.description}{_default_text(field.default)}",
        show_default=False,
        rich_help_panel=extra["group"],
    )
    return Annotated[kind | None, option]


def _default_text(default: Any) -> str:
    if default in (None, (), {}, False):
        return ""
    # In brackets, as typer writes defaults itself, rich would take it for markup.
    return f"; default: {'yes' if default is True else default}"
