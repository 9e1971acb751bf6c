"""Options of a configuration: what a backbone does not take is refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlawrap.errors import ConfigError, did_you_mean


def refuse_unknown(builder: Callable[..., Any], others: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for the first option that the builder has no parameter for."""
    parameters = inspect.signature(builder).parameters.values()
    takes = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    for name in others:
        hint = did_you_mean(name, takes)
        raise ConfigError(
            f"{builder.__name__}: takes no {name}={others[name]!r}.{hint} It takes "
            f"{', '.join(takes)}."
        )


def choose(builder: str, name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise `ConfigError` where a value is none of those allowed."""
    listed = list(allowed)
    if value not in listed:
        raise ConfigError(
            f"{builder}({name}={value!r}): choose one of {', '.join(map(repr, listed))}."
        )
