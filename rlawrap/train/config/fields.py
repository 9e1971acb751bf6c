"""Checking that the fields of a configuration hold what their annotations say."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from rlawrap.errors import ConfigError

_PLAIN = {int: "a whole number", bool: "true or false", str: "text"}


def check_fields(config: Any) -> None:
    """See that every field of a dataclass fits its annotation; lists, as JSON has them, become
    tuples where the annotation says so. Raises `ConfigError` with the field and what it takes.
    """
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        try:
            fitting = _fit(value, hint)
        except ValueError as error:
            raise ConfigError(f"{name}={value!r}: {error}.") from None
        if fitting is not value:
            object.__setattr__(config, name, fitting)


def check_names(kind: type, names: Iterable[str]) -> None:
    """Raise `ConfigError` for names that are no fields of a dataclass."""
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ConfigError(
            f"{kind.__name__} has no field {', '.join(unknown)}. "
            f"Its fields: {', '.join(sorted(known))}."
        )


def _fit(value: Any, hint: Any) -> Any:
    """The value, lists as tuples. Raises `ValueError` that says what is expected."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        # All unions of the configurations are "something or None".
        (some,) = [each for each in inner if each is not type(None)]
        return None if value is None else _fit(value, some)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"choose one of {', '.join(inner)}")
    elif origin is tuple:
        return _fit_tuple(value, inner)
    elif origin is dict:
        _check_object(value)
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError("expected a number")
        if not math.isfinite(value):
            raise ValueError("expected a finite number")
    elif not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(
            f"expected {_PLAIN.get(hint, f'an object: the fields of {hint.__name__}')}"
        )
    return value


def _fit_tuple(value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError("expected a list")
    endless = inner[-1] is Ellipsis
    if not endless and len(value) != len(inner):
        raise ValueError(f"expected a list of {len(inner)}")
    fitting = tuple(_fit(v, inner[0 if endless else n]) for n, v in enumerate(value))
    return value if fitting == value else fitting


def _check_object(value: Any) -> None:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("expected an object: names and values")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a value in it is none that JSON can hold ({error})") from None
