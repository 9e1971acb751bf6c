"""Guards: modules through which h runs, called one by one, would lose it without a word.

The rewritten forward calls elementary layers and never a block or a stage. So whoever calls one
(`model.layer1(x)`, torchvision's IntermediateLayerGetter, `nn.Sequential(*model.children())`, a
method of the base that could not be rewritten) runs the base's layers. A pre-hook on each tells.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

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
        caller = self._caller()
        if caller is None:
            warnings.warn(
                f"{self.path!r} of the rewritten network was called by itself and runs as in the "
                "base, without the hidden state. Call the whole model; rlawrap.backbone(model) "
                "gives its feature maps, and inside rlawrap.disabled(model) it is the base.",
                RLAWarning,
                stacklevel=2,
            )
        elif caller:
            name = self.splice.base_class.__name__
            raise PlanError(
                f"{caller}() of {name} calls {self.path!r} by itself and would run without the "
                "hidden state. Call the model, or rlawrap.backbone(model) for its feature maps; "
                "inside rlawrap.disabled(model) the method is the base's."
            )

    def _caller(self) -> str | None:
        """The method of the model that led here; "" if that model is disabled; None if none did."""
        frame = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            if isinstance(owner, nn.Module):
                splice = getattr(owner.__dict__.get("_modules", {}).get("rla"), "splice", None)
                if isinstance(splice, Splice) and splice.base_class is self.splice.base_class:
                    if splice.disabled:
                        return ""
                    if hasattr(splice.base_class, code.co_name) and not hasattr(
                        nn.Module, code.co_name
                    ):
                        return code.co_name
            frame = frame.f_back  # type: ignore[assignment]
        return None


def guard(model: nn.Module, splice: Splice, paths: Iterable[str]) -> None:
    """Put a guard on the modules at `paths`."""
    for path in paths:
        model.get_submodule(path).register_forward_pre_hook(Guard(path, splice))


def remove_guards(model: nn.Module) -> None:
    """Take the guards off all modules."""
    for module in model.modules():
        hooks = module._forward_pre_hooks
        for key in [k for k, hook in hooks.items() if isinstance(hook, Guard)]:
            del hooks[key]


def guarded(model: nn.Module) -> set[str]:
    """Paths of the modules with a guard."""
    return {
        path
        for path, module in model.named_modules(remove_duplicate=False)
        if any(isinstance(hook, Guard) for hook in module._forward_pre_hooks.values())
    }
