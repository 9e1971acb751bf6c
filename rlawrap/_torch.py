"""Every private name of torch that this package uses, each with why and since which version.

A release of torch may change any of these without a word; this is the one file to look at then.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as _module
from torch.utils.hooks import BackwardHook

__all__ = [
    "COMPILED_CALL",
    "BackwardHook",
    "backward_hooks",
    "forward_hooks",
    "global_hooks",
    "pre_hooks",
]

#: `torch.utils.hooks.BackwardHook`: what `nn.Module.__call__` makes of full backward hooks. Public
#: by its name, but documented nowhere. Since 1.8.

#: The attribute that `nn.Module.compile` sets: a copy of a model compiles itself. Since 2.2.
COMPILED_CALL = "_compiled_call_impl"


def pre_hooks(module: nn.Module) -> list[tuple[Any, bool]]:
    """The forward pre-hooks that a call of `module` runs, in order, each with whether it takes
    keyword arguments; what `nn.Module.__call__` reads. `_forward_pre_hooks_with_kwargs` since 2.0.
    """
    own = module._forward_pre_hooks
    with_kwargs = module._forward_pre_hooks_with_kwargs
    both = [(h, False) for h in _module._global_forward_pre_hooks.values()]
    return both + [(hook, key in with_kwargs) for key, hook in own.items()]


def forward_hooks(module: nn.Module) -> list[tuple[Any, bool]]:
    """The forward hooks that a call of `module` runs, as `pre_hooks`."""
    own, with_kwargs = module._forward_hooks, module._forward_hooks_with_kwargs
    both = [(hook, False) for hook in _module._global_forward_hooks.values()]
    return both + [(hook, key in with_kwargs) for key, hook in own.items()]


def backward_hooks(module: nn.Module) -> tuple[list[Any], list[Any], list[Any]]:
    """(full backward hooks, hooks of the old kind, backward pre-hooks) of a call of `module`."""
    full, old = module._get_backward_hooks()
    return list(full), list(old), list(module._get_backward_pre_hooks())


def global_hooks() -> bool:
    """Whether hooks are registered for all modules (`register_module_forward_hook` and its kin)."""
    return bool(
        _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
    )
