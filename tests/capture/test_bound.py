"""Which functions that were set on a network are methods of it."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from rlawrap.capture.bound import bound_methods, put_back, put_into_class
from tests.nets import BlockNet

Maker = Callable[[nn.Module], Any]


def twice(self: Any, x: Any) -> Any:
    return self.stem(self.stem(x))


def closing(value: Any) -> Callable[..., Any]:
    return lambda self, x: value and twice(self, x)


def late(net: nn.Module) -> Any:
    """A method that closes over a name which has no value."""

    def method(self: Any) -> Any:
        return nothing

    if net is None:
        nothing = 1
    return types.MethodType(method, net)


ARE: dict[str, Maker] = {
    "bound": lambda net: types.MethodType(twice, net),
    "another name of its class's": lambda net: net.extra_repr,
    "over a number": lambda net: types.MethodType(closing(3), net),
    "over an empty cell": late,
    "over itself": lambda net: types.MethodType(functools.wraps(twice)(closing(twice)), net),
}
ARE_NOT: dict[str, Maker] = {
    "function": lambda net: twice,
    "of another": lambda net: types.MethodType(twice, BlockNet()),
    "of its child": lambda net: net.stem.forward,
    "of its class": lambda net: types.MethodType(twice, type(net)),
    "partial": lambda net: functools.partial(twice, net),
    "no function": lambda net: types.MethodType(functools.partial(twice), net),
    "over it": lambda net: types.MethodType(closing(net), net),
    "over a method": lambda net: types.MethodType(closing(net.forward), net),
    "over its parts": lambda net: types.MethodType(closing([{"a": net.stem}]), net),
    "over a partial": lambda net: types.MethodType(closing(functools.partial(twice, net)), net),
    "by default": lambda net: types.MethodType(lambda self, x, of=net: of(x), net),
}


@pytest.mark.parametrize("name", [*ARE, *ARE_NOT])
def test_of_what_is_set_on_a_network_its_methods_are_told(name: str) -> None:
    net = BlockNet()
    net.added = {**ARE, **ARE_NOT}[name](net)
    assert list(bound_methods(net)) == (["added"] if name in ARE else [])


def test_a_class_of_its_own_and_back() -> None:
    net = BlockNet()
    net.twice = types.MethodType(twice, net)
    put_into_class(net, bound_methods(net))
    cls = type(net)
    assert (cls.__name__, cls.__module__) == ("BlockNet", BlockNet.__module__)
    assert cls.twice is twice and "twice" not in vars(net)  # type: ignore[attr-defined]
    assert issubclass(cls, BlockNet) and cls is not BlockNet
    put_back(net, cls)
    assert type(net) is BlockNet and net.twice.__self__ is net and "twice" in vars(net)


def test_without_such_methods_a_network_keeps_its_class() -> None:
    net = BlockNet()
    put_into_class(net, bound_methods(net))
    assert type(net) is BlockNet and put_back(net, BlockNet) is net and type(net) is BlockNet
