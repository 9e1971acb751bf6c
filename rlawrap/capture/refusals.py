"""What is no bare network is refused by name, before anything is traced."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rlawrap.errors import PlanError


def refuse_wrapped(model: Any, call: str) -> None:
    """Raise `PlanError` for what is no bare network: DDP, compiled, scripted, not a module."""
    if not isinstance(model, nn.Module):
        raise PlanError(f"{call}: expected a torch.nn.Module, got {type(model).__name__}.")
    wrappers = {
        "DataParallel": "pass model.module and wrap the result in DataParallel again",
        "DistributedDataParallel": "pass model.module and wrap the result in DDP again",
        "FullyShardedDataParallel": "apply before sharding",
        "FSDPModule": "apply before sharding",
        "OptimizedModule": "pass the module inside (model._orig_mod) and compile the result",
        "RLAModel": "it already has a hidden state; rlawrap.unwrap(model) gives the base back",
    }
    for path, module in model.named_modules():
        what = f"its module {path!r}" if path else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise PlanError(
                f"{call}: {what} is scripted; "
                f"{'put' if path else 'pass'} the eager module it was made from"
                f"{' in its place' if path else ''}."
            )
        for cls in type(module).__mro__:
            if cls.__name__ in wrappers:
                advice = wrappers[cls.__name__]
                advice = advice.replace("model.", f"model.{path}.") if path else advice
                raise PlanError(f"{call}: {what} is a {cls.__name__}; {advice}.")
    if "forward" in vars(model):
        raise PlanError(
            f"{call}: this {type(model).__name__} has a forward that was set on the instance "
            "(model.forward = …), beside that of its class; put it into a subclass."
        )
    if hasattr(model, "rla"):
        raise PlanError(
            f"{call}: the model has an attribute 'rla' of its own, the name under which everything "
            "new lives; rename it."
        )
