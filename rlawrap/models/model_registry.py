"""A name for every network that rlawrap builds."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable
from typing import Any

from torch import nn

from rlawrap.errors import ConfigError

Builder = Callable[..., nn.Module]

_BUILDERS: dict[str, Builder] = {}


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Register a builder function under `name`; a second registration of a name is an error.

    Raises `ConfigError` where it is used without a name (`@register_model`).

    >>> @register_model("my_net")
    ... def my_net(num_classes: int = 10) -> nn.Module:
    ...     return nn.Conv2d(3, num_classes, 1)
    >>> get_model("my_net", num_classes=2).out_channels
    2
    >>> del _BUILDERS["my_net"]  # of this example alone
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"@register_model was used on {getattr(name, '__name__', name)!r} without a name: "
            'write @register_model("my_net").'
        )

    def register(builder: Builder) -> Builder:
        if name in _BUILDERS:
            raise ConfigError(f"register_model({name!r}): that name is taken.")
        _BUILDERS[name] = builder
        return builder

    return register


def builder(name: str) -> Builder | None:
    """The function registered under `name`, or None."""
    return _BUILDERS.get(name)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_BUILDERS, pattern))


def get_model(name: str, **kwargs: Any) -> nn.Module:
    """Build the network registered under `name`; keyword arguments go to its builder.

    Raises `ConfigError` for an unknown name, with the nearest known ones.
    """
    builder = _BUILDERS.get(name)
    if builder is None:
        near = difflib.get_close_matches(name, _BUILDERS, n=3) or list_models()[:3]
        raise ConfigError(
            f"get_model({name!r}): no such model. Nearest: {', '.join(near)}. "
            "rlawrap.models.list_models() lists them all."
        )
    return builder(**kwargs)
