"""Hooks that are part of what a network computes, and so run while it is recorded.

A hook for others (a class map, a count of operations) runs around the recorded call as always and
says nothing of the network. Some belong to it: those that make weights, as PyTorch's own and those
of equalized learning rates, and those that keep what a module returned for another module to read,
as a UNet's skips are kept in fastai.
"""

from __future__ import annotations

import copy
import dis
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from rlawrap._torch import forward_hook_tables

#: The tables that every module has, the hooks' own among them.
_OF_TORCH = frozenset(vars(nn.Module()))


def computes(hook: Any) -> bool:
    """Whether a hook makes what its module computes with, or what the network returns.

    Those of `torch.nn.utils` make weights (weight norm, spectral norm, pruning); that of
    transformers collects the hidden states that a forward returns, and elsewhere does nothing.
    """
    theirs = type(hook).__module__.startswith("torch.nn.utils.")
    return theirs or getattr(hook, "__module__", "") == "transformers.utils.output_capturing"


def keep_hooks(model: nn.Module, memo: dict[int, Any]) -> None:
    """Give the copy of a model its hooks that keep values in the network; `memo` made the copy.

    They keep, and change nothing: what they return is left to the hooks of the network itself. A
    hook before a forward may as well set what its module computes with.
    """
    own = {id(value) for module in model.modules() for value in _held(module) if _keeps(value)}
    for module in model.modules():
        for before, table in zip((True, False), forward_hook_tables(module), strict=True):
            for key, hook in table.items():
                if computes(hook) or type(hook).__module__.startswith("rlawrap."):
                    continue  # there already; told of calls of rewritten networks alone
                if any(id(v) in own for v in _reached(hook)) or (before and _sets_attributes(hook)):
                    memo[id(table)][key] = _silent(_copied(hook, memo))


def _held(module: nn.Module) -> Iterator[Any]:
    """A module and what its attributes hold: objects, and what lists and dicts hold of them."""
    yield module
    for value in (v for name, v in vars(module).items() if name not in _OF_TORCH):
        if isinstance(value, (list, tuple, set)):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()
        yield value


def _keeps(value: Any) -> bool:
    """Whether a value could be written to, and is no code and no tensor."""
    code = isinstance(value, (type, types.FunctionType, types.ModuleType, Tensor))
    return isinstance(value, (list, dict, set)) or (hasattr(value, "__dict__") and not code)


def _reached(hook: Any) -> Iterator[Any]:
    """What a hook can write to: the object that it is a method of, or bound to, or encloses."""
    if isinstance(hook, functools.partial):
        yield from (*hook.args, *hook.keywords.values())
        yield from _reached(hook.func)
    elif isinstance(hook, types.MethodType):
        yield hook.__self__
    elif isinstance(hook, types.FunctionType):
        yield from (cell.cell_contents for cell in _cells(hook))
    else:
        yield from (hook, *getattr(hook, "__dict__", {}).values())


def _sets_attributes(hook: Any) -> bool:
    """Whether a hook's code sets attributes: a weight of its module, from what this stores."""
    if isinstance(hook, functools.partial):
        return _sets_attributes(hook.func)
    function = getattr(hook, "__func__", hook)
    if not isinstance(function, types.FunctionType):
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return code is not None and any(
        i.opname == "STORE_ATTR" or i.argval == "setattr" for i in dis.get_instructions(code)
    )


def _cells(function: types.FunctionType) -> list[types.CellType]:
    return [c for c in function.__closure__ or () if c != types.CellType()]


def _copied(hook: Any, memo: dict[int, Any]) -> Any:
    """A hook on the copies of what it reaches."""
    if isinstance(hook, functools.partial):
        args, keywords = copy.deepcopy((hook.args, hook.keywords), memo)
        return functools.partial(_copied(hook.func, memo), *args, **keywords)
    if not isinstance(hook, types.FunctionType):
        return copy.deepcopy(hook, memo)
    cells = tuple(
        types.CellType(copy.deepcopy(c.cell_contents, memo)) if c != types.CellType() else c
        for c in hook.__closure__ or ()
    )
    made = types.FunctionType(
        hook.__code__, hook.__globals__, hook.__name__, hook.__defaults__, cells
    )
    made.__kwdefaults__ = hook.__kwdefaults__
    return made


def _silent(hook: Callable[..., Any]) -> Callable[..., None]:
    def call(*args: Any) -> None:
        hook(*args)

    return call
