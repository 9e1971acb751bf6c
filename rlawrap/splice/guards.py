"""Guards: modules through which h runs, called one by one, would lose it without a word.

The rewritten forward calls elementary layers and never a block or a stage. So whoever calls one
(`model.layer1(x)`, torchvision's IntermediateLayerGetter, `nn.Sequential(*model.children())`, a
method of the base that could not be rewritten) runs the base's layers. A pre-hook on each tells.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import nn

from rlawrap._torch import own_pre_hooks
from rlawrap.design.names import ROOT
from rlawrap.errors import PlanError, RLAWarning
from rlawrap.splice.hooks import OutsideHook
from rlawrap.splice.record import Splice


class Guard(OutsideHook):
    """The pre-hook on one module; silent where its model does without h on purpose."""

    def __init__(self, path: str, splice: Splice) -> None:
        self.path, self.splice = path, splice

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self.splice.disabled or torch.compiler.is_compiling():
            return
        name = self.splice.base_class.__name__
        for owner, method in _callers(sys._getframe(1)):
            if owner is not module and _has_guard(owner):
                return  # called by one that told already
            splice = getattr(owner._modules.get(ROOT), "splice", None)
            if splice is None or splice.base_class is not self.splice.base_class:
                continue
            if splice.disabled:
                return
            if hasattr(splice.base_class, method) and not hasattr(nn.Module, method):
                raise PlanError(
                    f"{method}() of {name} calls {self.path!r} by itself and would run without the "
                    "hidden state. Call the model, or rlawrap.backbone(model) for its feature "
                    "maps; inside rlawrap.disabled(model) the method is the base's."
                )
        warnings.warn(
            f"{self.path!r} of the rewritten {name} was called by itself and runs as in the base, "
            "without the hidden state. Call the whole model; rlawrap.backbone(model) gives its "
            "feature maps, and inside rlawrap.disabled(model) it is the base.",
            RLAWarning,
            stacklevel=_levels_to_user(),
        )


def _callers(frame: FrameType | None) -> Iterator[tuple[nn.Module, str]]:
    """The modules whose methods are under way, innermost first, with the methods' names."""
    while frame is not None:
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(owner, nn.Module):
            yield owner, code.co_name
        frame = frame.f_back


def _levels_to_user() -> int:
    """How many frames up, as `warnings.warn` counts them, the user's code stands."""
    frame, levels = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        ("torch.", "rlawrap.splice.")
    ):
        frame, levels = frame.f_back, levels + 1
    return levels


def _has_guard(module: nn.Module) -> bool:
    return any(isinstance(hook, Guard) for hook in own_pre_hooks(module).values())


def guard(model: nn.Module, splice: Splice, paths: Iterable[str]) -> None:
    """Put a guard on the modules at `paths`."""
    for path in paths:
        model.get_submodule(path).register_forward_pre_hook(Guard(path, splice))


def remove_guards(model: nn.Module) -> None:
    """Take the guards off all modules."""
    for module in model.modules():
        hooks = own_pre_hooks(module)
        for key in [k for k, hook in hooks.items() if isinstance(hook, Guard)]:
            del hooks[key]
