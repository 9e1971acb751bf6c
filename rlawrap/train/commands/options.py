"""`TrainConfig` as options of a command line, one for each field, with its help text."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rlawrap.errors import ConfigError
from rlawrap.train.config.augment import AugmentConfig
from rlawrap.train.config.recipes import get_recipe
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data.opening import NAMED, default_size

#: Options of the augmentation; the rest of `AugmentConfig` is set by --config.
AUGMENT_HELP = {
    "crop": "crop: resized, padded or none",
    "padding": "pixels around the image before a padded crop",
    "flip": "probability of a horizontal flip",
    "randaugment": "RandAugment operations per image",
    "magnitude": "magnitude of RandAugment, 0 to 30",
    "erase": "probability of erasing a rectangle",
    "mixup": "alpha of mixup; 0: none",
    "cutmix": "alpha of CutMix; 0: none",
    "resize": "shorter side before the centre crop in evaluation",
}

DataArgument = Annotated[
    str | None, typer.Argument(help=f"data set: {', '.join(NAMED)}, or a folder")
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


def option_parameters() -> list[inspect.Parameter]:
    """A keyword parameter for every field, None when the user did not give the option."""
    hints = typing.get_type_hints(TrainConfig)
    parameters = []
    for field in dataclasses.fields(TrainConfig):
        if field.name == "augment":
            continue
        parameters.append(
            _parameter(
                field.name,
                _option_type(hints[field.name]),
                f"{field.metadata['help']}{_default_text(field)}",
                flag=field.metadata["flag"],
            )
        )
    augment_hints = typing.get_type_hints(AugmentConfig)
    for name, text in AUGMENT_HELP.items():
        parameters.append(_parameter(name, _option_type(augment_hints[name]), text))
    return parameters


def config_from_options(
    options: Mapping[str, Any], *, recipe: str | None = None, base: str | None = None
) -> TrainConfig:
    """The configuration: a recipe or a JSON config (a file, or the text), then the options given.

    Raises `ConfigError` for values that make no sense.
    """
    if recipe is not None and base is not None:
        raise ConfigError("--recipe and --config: give one of them.")
    config = TrainConfig()
    if recipe is not None:
        config = get_recipe(recipe).config()
    elif base is not None:
        config = read_config(base)
    given = {name: value for name, value in options.items() if value not in (None, [])}
    augment = {name: given.pop(name) for name in AUGMENT_HELP if name in given}
    if "model_kwargs" in given:
        given["model_kwargs"] = {**config.model_kwargs, **parse_assignments(given["model_kwargs"])}
    if augment:
        data = given.get("data", config.data)
        size = given.get("image_size") or config.image_size or default_size(data)
        start = config.augment or AugmentConfig.for_size(size)
        given["augment"] = dataclasses.replace(start, **augment)
    return config.replace(**given)


def read_config(source: str) -> TrainConfig:
    """A config from JSON text or from a file of it, such as a run's config.json."""
    text = source
    if not source.lstrip().startswith("{"):
        try:
            text = Path(source).read_text()
        except OSError as error:
            raise ConfigError(f"--config {source}: cannot be read ({error.strerror}).") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"--config {source}: not JSON ({error}).") from error
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--config: not JSON ({error}).") from error
    if not isinstance(values, dict):
        raise ConfigError("--config: JSON, but not an object of fields.")
    return TrainConfig.from_dict(values)


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; a value is JSON, or text when it is not.

    >>> parse_assignments(["k=8", "init=identity", "head=true"])
    {'k': 8, 'init': 'identity', 'head': True}
    """
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--model-arg {text!r}: write NAME=VALUE, such as k=16.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def _option_type(hint: Any) -> Any:
    """The type that the command line reads: choices as text, tuples and dicts as lists."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [a for a in typing.get_args(hint) if a is not type(None)]
        return _option_type(inner)
    if origin is typing.Literal:
        return str
    if origin in (tuple, dict):
        return list[str]
    return hint


def _parameter(
    name: str, kind: Any, help_text: str, *, flag: str | None = None
) -> inspect.Parameter:
    flag = flag or "--" + name.replace("_", "-")
    if kind is bool:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    annotation = Annotated[kind | None, typer.Option(flag, help=help_text, show_default=False)]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _default_text(field: dataclasses.Field[Any]) -> str:
    literal = ""
    hint = typing.get_type_hints(TrainConfig)[field.name]
    if typing.get_origin(hint) is typing.Literal:
        literal = ": " + ", ".join(typing.get_args(hint))
    default = field.default
    if default in (None, (), False) or default is dataclasses.MISSING:
        return literal
    # In brackets, as typer writes defaults itself, rich would take it for markup.
    return f"{literal}; default: {'yes' if default is True else default}"
