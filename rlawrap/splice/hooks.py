"""Running the hooks of a module that the rewritten forward does not call.

The graph calls elementary layers; a block or a stage is a run of its nodes. Around such a run a
*hook point* does what `nn.Module.__call__` does around a forward: pre-hooks on the arguments, full
backward hooks on the tensors, forward hooks on the output. Hooks that are to run after an error
(`always_call=True`) run only where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlawrap._torch import (
    BackwardHook,
    backward_hooks,
    forward_hooks,
    hook_tables,
    pre_hooks,
    pytree,
)
from rlawrap.errors import RLAError


class OutsideHook:
    """A pre-hook for calls by others alone; hook points pass it over."""


@dataclass
class Passage:
    """One call that is under way: the module, its arguments, and what waits for its gradients."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    backward: Any
    old_backward: list[Any]


def has_own_hooks(module: nn.Module) -> bool:
    """Whether a call of a module runs hooks, those for calls by others apart."""
    hooks = (hook for table in hook_tables(module) for hook in table.values())
    return any(not isinstance(hook, OutsideHook) for hook in hooks)


def enter(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], where: tuple[int, ...]
) -> tuple[Any, ...]:
    """What stands before a module's forward: (passage, the tensors at `where` in its arguments).

    `where` counts the leaves of `(args, kwargs)`.
    """
    args, kwargs = tuple(args), dict(kwargs)
    for hook, takes_kwargs in pre_hooks(module):
        if isinstance(hook, OutsideHook):
            continue
        if takes_kwargs:
            result = hook(module, args, kwargs)
            if result is not None:
                args, kwargs = result
        else:
            result = hook(module, args)
            if result is not None:
                args = result if isinstance(result, tuple) else (result,)
    full, old, pre = backward_hooks(module)
    backward = None
    if full or pre:
        backward = BackwardHook(module, full, pre)
        args = backward.setup_input_hook(args)
    leaves = pytree.tree_leaves((args, kwargs))
    if where and max(where) >= len(leaves):
        raise RLAError(
            f"a forward pre-hook of a {type(module).__name__} returned fewer arguments than it "
            "got; in a rewritten network a hook may change values, not their number."
        )
    passage = Passage(module, args, kwargs, backward, old)
    return (passage, *(leaves[i] for i in where))


def leave(passage: Passage, output: Any, where: tuple[int, ...]) -> tuple[Any, ...]:
    """Run what stands behind a module's forward: the tensors at `where` in its output."""
    module = passage.module
    for hook, takes_kwargs in forward_hooks(module):
        if takes_kwargs:
            result = hook(module, passage.args, passage.kwargs, output)
        else:
            result = hook(module, passage.args, output)
        if result is not None:
            output = result
    if passage.backward is not None:
        output = passage.backward.setup_output_hook(output)
    if passage.old_backward:
        _hook_old(passage, output)
    leaves = pytree.tree_leaves(output)
    if where and max(where) >= len(leaves):
        raise RLAError(
            f"a forward hook of a {type(module).__name__} returned fewer tensors than it got; in a "
            "rewritten network a hook may change values, not their number."
        )
    return tuple(leaves[i] for i in where)


def _hook_old(passage: Passage, output: Any) -> None:
    """Backward hooks of the old kind hang on the node that made the output."""
    for value in pytree.tree_leaves(output):
        if isinstance(value, torch.Tensor) and value.grad_fn is not None:
            for hook in passage.old_backward:
                value.grad_fn.register_hook(lambda *grads, h=hook: h(passage.module, *grads))
            return
