"""What is no bare network is refused by name, before anything is traced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from rlawrap.capture.bound import bound_methods
from rlawrap.errors import PlanError, spelled

#: By the class of what is no bare network: how one comes to the network inside, if one does.
_WRAPPERS = {
    "DataParallel": "{}.module",
    "DistributedDataParallel": "{}.module",
    "OptimizedModule": "{}._orig_mod",
    "FullyShardedDataParallel": "",
    "FSDPModule": "",
}


def is_wrapper(module: nn.Module) -> bool:
    """Whether a module has been put around another: DataParallel, DDP, or a compiled one."""
    return any(_WRAPPERS.get(cls.__name__) for cls in type(module).__mro__)


def _wrapper(cls: type) -> bool:
    """Whether a class is one of wrappers, or of rewritten networks."""
    ours = cls.__module__.startswith("rlawrap.splice.")
    return cls.__name__ in (("Backbone", "RLAModel") if ours else _WRAPPERS)


def _told(cls: type, place: str) -> str:
    """What a wrapper is and what to do with it; `place` is that of a module inside the model."""
    name, inside = cls.__name__, place or "model"
    if name == "Backbone":
        return "is a backbone cut from a model that has a hidden state; it has it, too."
    if name == "RLAModel":
        bare = f"rlawrap.unwrap({inside})"
        told = "is a RLAModel; it already has a hidden state. Without it the network is"
        return f"{told} `{place} = {bare}`." if place else f"{told} `model = {bare}`."
    if not _WRAPPERS[name]:
        return f"is a {name}; apply before sharding."
    inner = _WRAPPERS[name].format(inside)
    if place:
        return f"is a {name}; put what it wraps in its place, `{place} = {inner}`."
    return f"is a {name}; take what it wraps, `{inside} = {inner}`, and wrap the result."


def _on_the_way(model: nn.Module, at: str | None) -> Iterator[tuple[str, nn.Module]]:
    """The modules around the one at a path, the model first, and those inside of it."""
    yield "", model
    if at is None:
        return
    names = at.split(".") if at else []
    for length in range(1, len(names)):
        path = ".".join(names[:length])
        yield path, model.get_submodule(path)
    for path, module in model.get_submodule(at).named_modules(prefix=at):
        if path:
            yield path, module


def refuse_wrapped(model: Any, call: str, *, at: str | None = "") -> None:
    """Raise `PlanError` for what is no bare network: DDP, compiled, scripted, not a module.

    at: the path of the network in the model, around and inside of which such a module must not
    lie; None asks for the model alone.
    """
    if not isinstance(model, nn.Module):
        raise PlanError(f"{call}: expected a torch.nn.Module, got {type(model).__name__}.")
    if not issubclass(type(model), nn.Module):
        raise PlanError(
            f"{call}: the model is a {type(model).__name__}, which stands for a "
            f"{model.__class__.__name__} and is no torch.nn.Module itself; pass the network inside."
        )
    for path, module in _on_the_way(model, at):
        what = f"its module {path!r}" if path else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise PlanError(
                f"{call}: {what} is scripted; "
                f"{'put' if path else 'pass'} the eager module it was made from"
                f"{' in its place' if path else ''}."
            )
        for cls in type(module).__mro__:
            if _wrapper(cls):
                place = spelled(path, model) if path else ""
                raise PlanError(f"{call}: {what} {_told(cls, place)}")
    if at is None:
        return
    network = model.get_submodule(at)
    if "forward" in vars(network) and "forward" not in bound_methods(network):
        raise PlanError(
            f"{call}: this {type(network).__name__} has a forward that was set on the instance "
            "(model.forward = …) and is no method of it, so that a copy would run this network "
            "still. Write it as a function of self and its inputs and bind that, "
            "`model.forward = types.MethodType(forward, model)`, or put it into a subclass."
        )
    if hasattr(network, "rla"):
        what = f"its module {at!r}" if at else "the model"
        raise PlanError(
            f"{call}: {what} has an attribute 'rla' of its own, the name under which everything "
            "new lives; rename it."
        )
