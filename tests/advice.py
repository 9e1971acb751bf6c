"""What a refusal tells to do, taken out of its message and done.

A call to make stands in backquotes: arguments for the call that was refused, or a statement about
`model`, after which the refused call is made again unless it has rewritten something itself.
"""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import safetensors.torch
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.copying import deep_copy
from rlawrap.discover.part_inputs import part_inputs

#: A refusal may lead to another, so often.
DEEPEST = 3


def calls_told(error: Exception | str) -> list[str]:
    """The calls that a message tells to make."""
    return re.findall(r"`([^`]+)`", str(error))


def ends(
    model: Any,
    arguments: dict[str, Any],
    names: dict[str, Any],
    call: Callable[..., Any] = rlawrap.apply,
    depth: int = DEEPEST,
) -> list[Any]:
    """What all the advice comes to: results of the refused call, or refusals without advice.

    `names` are what a user puts in: `x`, an input, and `y`, that of a part, which else is taken of
    the network as it runs.
    """
    try:
        with quiet():
            return [call(model, **arguments)]
    except rlawrap.RLAError as error:
        told = calls_told(error)
        if not told:
            return [error]
        assert depth, f"advice leads nowhere: {error}"
    found: list[Any] = []
    for code in told:
        model_then, arguments_then, done = _after(code, model, arguments, names)
        if done is not None:
            found.append(done)
        else:
            found += ends(model_then, arguments_then, names, call, depth - 1)
    return found


def _after(
    code: str, model: Any, arguments: dict[str, Any], names: dict[str, Any]
) -> tuple[Any, dict[str, Any], Any]:
    """The model and the arguments once a call is made; what it came to, if that ends it."""
    scope = {**arguments, **names, "rlawrap": rlawrap, "torch": torch, "safetensors": safetensors}
    model = deep_copy(model) if isinstance(model, nn.Module) else model
    scope["model"] = model
    part = re.search(r"at='([^']+)', example_input=y", code)
    if part is not None and "y" not in names:
        scope["y"] = part_inputs(model, arguments.get("example_input"), [part[1]])[part[1]]
    if _adds_arguments(code):
        return model, {**arguments, **eval(f"dict({code})", scope)}, None
    with quiet():
        if not _is_expression(code):
            exec(code, scope)
            model = scope["model"]
            return model, arguments, model if rewritten(model) else None
        value = eval(code, scope)
    if isinstance(value, (rlawrap.Plan, rlawrap.Plans)):
        return model, {**arguments, "plan": value}, None
    if isinstance(value, Tensor):  # the network ran, and may have changed by it
        return model, arguments, None
    return model, arguments, value if value is not None else code


def _adds_arguments(code: str) -> bool:
    try:
        tree = ast.parse(f"dict({code})", mode="eval").body
    except SyntaxError:
        return False
    assert isinstance(tree, ast.Call)
    return bool(tree.keywords) and not tree.args and all(k.arg != "model" for k in tree.keywords)


def _is_expression(code: str) -> bool:
    try:
        ast.parse(code, mode="eval")
    except SyntaxError:
        return False
    return True


def rewritten(model: Any) -> bool:
    """Whether a network has a hidden state, itself or in a part."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return any(isinstance(m, rlawrap.RLAModel) for m in modules)


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of rlawrap are no failures here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rlawrap.RLAWarning)
        yield


def computes_the_same(base: nn.Module, model: nn.Module, x: Any) -> bool:
    """Whether two networks return close tensors for an input (a tensor, a tuple or a dict)."""
    outputs = []
    for net in (base, model):
        random.seed(0)
        numpy.random.seed(0)  # noqa: NPY002
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(0)
            outputs.append(_tensors(_called(deep_copy(net).eval(), x)))
    a, b = outputs
    return len(a) == len(b) and all(map(_close, a, b))


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _called(net: nn.Module, x: Any) -> Any:
    if isinstance(x, dict):
        return net(**x)
    return net(*x) if isinstance(x, tuple) else net(x)


def _tensors(value: Any) -> list[Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(value)
    return [leaf.detach() for leaf in leaves if isinstance(leaf, Tensor)]
