"""Hooks that are part of what a network computes, and so run while it is recorded.

A hook for others (a class map, a count of operations) runs around the recorded call as always and
says nothing of the network. Some belong to it: those that make weights, as PyTorch's own and those
of equalized learning rates, and those that keep what a module returned for another module to read,
as a UNet's skips are kept in fastai.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from rlawrap._torch import forward_hook_tables, own_pre_hooks
from rlawrap.capture.caches import EMPTY, enclosed
from rlawrap.capture.opcodes import sets_attributes

#: The tables that every module has, the hooks' own among them.
_OF_TORCH = frozenset(vars(nn.Module()))


def computes(hook: Any) -> bool:
    """Whether a hook makes what its module computes with, or what the network returns.

    Those of `torch.nn.utils` make weights (weight norm, spectral norm, pruning); that of
    transformers collects the hidden states that a forward returns, and elsewhere does nothing.
    """
    theirs = type(hook).__module__.startswith("torch.nn.utils.")
    return theirs or getattr(hook, "__module__", "") == "transformers.utils.output_capturing"


class Keeper:
    """A hook on a copy of a network: it keeps, and changes nothing of what it is given.

    What it returns is left to the hook of the network itself.
    """

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook
        #: While the copy is recorded: where what the hook computes belongs.
        self.place: Callable[[], AbstractContextManager[None]] = nullcontext

    def __call__(self, *args: Any) -> None:
        with self.place():
            self.hook(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Keeper:
        """Of a module that runs as a whole, apart from what is recorded."""
        return Keeper(copy.deepcopy(self.hook, memo))


def keep_hooks(model: nn.Module, memo: dict[int, Any]) -> tuple[Keeper, ...]:
    """Give the copy of a model its hooks that keep values in the network; `memo` made the copy.

    A hook before a forward may as well set what its module computes with. Returns them.
    """
    keepers: list[Keeper] = []
    own = {id(value) for module in model.modules() for value in _held(module) if _keeps(value)}
    for module in model.modules():
        before = own_pre_hooks(module)
        for table in forward_hook_tables(module):
            for key, hook in table.items():
                if computes(hook) or type(hook).__module__.startswith("rlawrap."):
                    continue  # there already; told of calls of rewritten networks alone
                if any(id(v) in own for v in _reached(hook)) or (table is before and _makes(hook)):
                    memo[id(table)][key] = keeper = Keeper(_copied(hook, memo))
                    keepers.append(keeper)
    return tuple(keepers)


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
        yield from enclosed(hook)
    else:
        yield from (hook, *getattr(hook, "__dict__", {}).values())


def _makes(hook: Any) -> bool:
    """Whether a hook sets attributes: a weight of its module, of another that this stores."""
    return sets_attributes(hook.func if isinstance(hook, functools.partial) else hook)


def _copied(hook: Any, memo: dict[int, Any]) -> Any:
    """A hook on the copies of what it reaches."""
    if isinstance(hook, functools.partial):
        args, keywords = copy.deepcopy((hook.args, hook.keywords), memo)
        return functools.partial(_copied(hook.func, memo), *args, **keywords)
    if not isinstance(hook, types.FunctionType):
        return copy.deepcopy(hook, memo)
    cells = tuple(
        c if c == EMPTY else types.CellType(copy.deepcopy(c.cell_contents, memo))
        for c in hook.__closure__ or ()
    )
    made = types.FunctionType(
        hook.__code__, hook.__globals__, hook.__name__, hook.__defaults__, cells
    )
    made.__kwdefaults__ = hook.__kwdefaults__
    return made
