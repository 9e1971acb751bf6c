"""`Checked`: plain data whose fields pydantic checks, and whose errors are rlawrap's own."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlawrap.errors import ConfigError

Self = TypeVar("Self", bound="Checked")

# What pydantic says of Python's tuples, in words that also fit the lists of JSON.
_WORDS = {"tuple_type": "should be a list", "missing": "needs more values"}


class Checked(BaseModel):
    """Frozen fields that hold what their annotations and bounds say, and no others.

    A path (`pathlib.Path`) is taken as its text.

    Raises `ConfigError` for what does not fit: with the field, its value, and what it takes.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,  # True is no number, and "3" none either
        allow_inf_nan=False,
        protected_namespaces=(),  # `model_kwargs` is ours
    )

    def __init__(self, **values: Any) -> None:
        paths = {name: os.fspath(v) for name, v in values.items() if isinstance(v, os.PathLike)}
        values.update(paths)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(" ".join(_sentences(type(self), error, values))) from None

    def replace(self: Self, **changes: Any) -> Self:
        """A copy with other values, checked like the first. Raises `ConfigError`."""
        kind = type(self)
        return kind(**{**{name: getattr(self, name) for name in kind.model_fields}, **changes})


def check_names(values: Any) -> None:
    """Raise `ConfigError` for keys that are no names, as a file of YAML may hold them."""
    for name in values if isinstance(values, Mapping) else ():
        if not isinstance(name, str):
            raise ConfigError(
                f"--config: {name!r} is no name of a field. YAML reads on, off, yes and no as true "
                "and false, and digits as numbers; take that line out."
            )


def as_json_holds(values: dict[str, Any], field: str) -> dict[str, Any]:
    """Values as they come back from JSON. Raises `ConfigError` for one that it cannot hold."""
    try:
        text = json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{field}={values!r}: a value in it is none that JSON can hold ({error})."
        ) from None
    return dict(json.loads(text))


def option_group(title: str) -> Callable[..., Any]:
    """A maker of fields that stand under one title in `--help`.

    The maker takes the default, the help text, bounds as pydantic's `Field` has them, and `flag`,
    which replaces the option name made from the field's name.
    """

    def option(default: Any, help: str, *, flag: str | None = None, **bounds: Any) -> Any:
        extra: Any = {"group": title, "flag": flag}
        return Field(default, description=help, json_schema_extra=extra, **bounds)

    return option


def _sentences(kind: type[Checked], error: ValidationError, values: Mapping[str, Any]) -> list[str]:
    """A sentence for each field that does not fit."""
    return [_sentence(kind, dict(fault), values) for fault in error.errors()]


def _sentence(kind: type[Checked], fault: dict[str, Any], values: Mapping[str, Any]) -> str:
    reason = fault.get("ctx", {}).get("error")
    if isinstance(reason, ConfigError):  # of a check of our own
        return str(reason)
    name, *inside = fault["loc"]
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, kind.model_fields, n=3)
        return f"{kind.__name__} has no field {name}. " + (
            f"Nearest: {', '.join(near)}."
            if near
            else f"Its fields: {', '.join(kind.model_fields)}."
        )
    text = _WORDS.get(fault["type"], fault["msg"].removeprefix("Input "))
    whole = values[name]
    which = "" if not inside or fault["input"] is whole else f"{fault['input']!r} "
    return f"{name}={whole!r}: {which}{text}."
