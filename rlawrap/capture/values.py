"""The values of tensors that follow from sizes and constants alone: `torch.tensor(x.shape)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from rlawrap._torch import without_modes
from rlawrap.capture.questions import UNKNOWN
from rlawrap.capture.trace import name_of
from rlawrap.walks import search

_DRAWS = (
    "draws random numbers and goes on with their values, and tracing would freeze them: control "
    "flow on a value that tracing cannot know"
)
_RANDOM = frozenset(
    "rand randn randint randperm rand_like randn_like randint_like bernoulli bernoulli_ normal "
    "normal_ uniform_ multinomial poisson exponential_ geometric_ cauchy_ log_normal_ random_ "
    "dropout empty empty_like new_empty".split()
)
_MOST = 65536


def item_of(tensor: Tensor) -> Any:
    """`tensor.item()` as a function that a graph can call."""
    return tensor.item()


def list_of(tensor: Tensor) -> Any:
    """`tensor.tolist()` as a function that a graph can call."""
    return tensor.tolist()


def numel_of(tensor: Tensor) -> int:
    """`tensor.numel()` as a function that a graph can call."""
    return tensor.numel()


def stride_of(tensor: Tensor, *axis: int) -> Any:
    """`tensor.stride()` as a function that a graph can call."""
    return tensor.stride(*axis)


def _asks(node: fx.Node) -> bool:
    """Whether a node asks for a device: values are worked out on the CPU."""
    return node.target is getattr and str(node.args[1]) == "device"


def values_of(
    node: fx.Node,
    constants: Mapping[str, Tensor],
    worth: Mapping[fx.Node, Any],
    lost: Callable[[str], Exception],
) -> tuple[Tensor, bool]:
    """The value of a node, and whether it follows from the size of an input.

    `worth` has the numbers that follow from sizes. Raises what `lost` makes where the values of
    inputs, parameters, buffers or random numbers are asked for.
    """
    needed = set(search([node], lambda n: [] if n in worth or _asks(n) else n.all_input_nodes))
    for n in needed - set(worth):
        if n.op == "get_attr" and n.target in constants:
            continue
        if name_of(n) in _RANDOM:
            raise lost(_DRAWS)
        if n.op not in ("call_function", "call_method"):
            raise lost(UNKNOWN)
    env: dict[fx.Node, Any] = {}
    with without_modes(), torch.no_grad():
        for n in node.graph.nodes:
            if n not in needed:
                continue
            if n in worth:
                env[n] = worth[n]
            elif _asks(n):
                env[n] = torch.device("cpu")
            elif n.op == "get_attr":
                env[n] = constants[str(n.target)].clone()
            else:
                args, kwargs = fx.node.map_arg((n.args, n.kwargs), env.__getitem__)
                if "device" in kwargs:
                    kwargs = {**kwargs, "device": "cpu"}
                called: Any = n.target
                if n.op == "call_method":
                    called = getattr(type(args[0]), str(n.target))
                env[n] = called(*args, **kwargs)
            if isinstance(env[n], Tensor) and env[n].numel() > _MOST:
                raise lost(UNKNOWN)
    return env[node], any(n in worth for n in needed)
