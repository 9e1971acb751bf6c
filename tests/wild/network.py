"""A network of somebody else's package: how to build it, what it takes, what its blocks are called.

The lists in `tests/wild/nets` are data: no package is imported before a network is built.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tests.nets import uneven
from tests.zoo.truth import Family

Maker = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Wild:
    """One network: `package/name`, random weights, a small input and the names of its blocks."""

    name: str
    maker: Maker
    #: What `example_input=` takes: a tensor, a tuple or a dict by argument name.
    example: Maker
    #: The architecture's own block classes; None where it writes them in no class of their own.
    family: Family | None = None
    #: Options of the second call, where the first is refused and its message names them.
    second: dict[str, Any] = field(default_factory=dict)
    #: Whether it takes the example in training mode, where some ask for labels.
    trains: bool = True

    @property
    def package(self) -> str:
        return self.name.split("/")[0]

    def build(self) -> nn.Module:
        """The network, the same every time, with uneven norms and nothing that is zero."""
        torch.manual_seed(zlib.crc32(self.name.encode()))
        net: nn.Module = self.maker()
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.is_floating_point() and parameter.dim() > 1 and not parameter.any():
                    parameter.normal_(0, 0.05)
        return uneven(net)


def net(
    name: str,
    maker: Maker,
    example: Maker,
    *blocks: str,
    outside: tuple[str, ...] = (),
    **more: Any,
) -> Wild:
    """A line of a list; `blocks` are class names, `outside` paths of stems and heads of them."""
    family = Family(classes=blocks, outside=outside) if blocks else None
    return Wild(name=name, maker=maker, example=example, family=family, **more)


def found(dotted: str) -> Any:
    """What a dotted name names: the longest module of it is imported."""
    parts = dotted.split(".")
    for i in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError as error:
            if error.name is None or not ".".join(parts[:i]).startswith(error.name):
                raise
            continue
        for part in parts[i:]:
            value = getattr(value, part)
        return value
    raise ModuleNotFoundError(dotted, name=parts[0])


def made(dotted: str, *args: Any, **kwargs: Any) -> Maker:
    """Calls what a dotted name names; arguments that `made` or `made_of` wrote are made first."""
    return lambda: found(dotted)(*map(_value, args), **{k: _value(v) for k, v in kwargs.items()})


def changed(maker: Maker, change: Callable[[Any], None]) -> Maker:
    """What `maker` makes, after a change in place."""

    def build() -> Any:
        made = maker()
        change(made)
        return made

    return build


def _value(item: Any) -> Any:
    return item() if getattr(item, "__name__", "") == "<lambda>" else item


def configured(model: str, config: str, **options: Any) -> Maker:
    """`model(config(**options))`, as transformers has it."""
    return made(model, made(config, **options))


def image(*shape: int) -> Maker:
    """A random tensor."""
    return lambda: torch.randn(shape)


def positive(*shape: int) -> Maker:
    """A random tensor between 0 and 1, as pixels are."""
    return lambda: torch.rand(shape)


def integers(high: int, *shape: int) -> Maker:
    return lambda: torch.randint(high, shape)


def several(*makers: Maker) -> Maker:
    """A tuple, for arguments by position."""
    return lambda: tuple(map(_value, makers))


def named(**makers: Any) -> Maker:
    """A dict by argument name."""
    return lambda: {name: _value(maker) for name, maker in makers.items()}
