"""What there is to ask of a rewritten network: its base, its own part, and to do without h."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from rlawrap.errors import PlanError
from rlawrap.splice.model import RLAModel


def checked(model: Any, call: str) -> RLAModel:
    """`model`, if it is a whole rewritten network. Raises `PlanError` if not."""
    if not isinstance(model, RLAModel):
        raise PlanError(
            f"{call}: expected a model made by rlawrap.apply, got {type(model).__name__}. "
            "Of a DDP or compiled model pass the module inside."
        )
    if not model._whole:
        raise PlanError(f"{call}: the model is a backbone; pass the model it was cut from.")
    return model


def unwrap(model: nn.Module) -> nn.Module:
    """The base network with the present weights, as a copy: same class, keys, mode and outputs as
    the network before `apply`.

    >>> import rlawrap, torchvision
    >>> model = rlawrap.apply(torchvision.models.resnet18(weights=None), k=8)
    >>> type(rlawrap.unwrap(model)).__name__
    'ResNet'
    """
    rla_model = checked(model, "unwrap(model)")
    base = copy.deepcopy(rla_model._bare_base())
    modules = dict(base.named_modules())
    for path in rla_model.__dict__["_turned"]:
        modules[path].inplace = True  # type: ignore[assignment]
    return base


def rla_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The part of the state dict that `apply` added: the keys that start with `rla.`."""
    state = checked(model, "rla_state_dict(model)").state_dict()
    return {key: value for key, value in state.items() if key.startswith("rla.")}


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """Within this context the model computes what its base does, with the present weights.

    The change is this model's alone; it ends with the context, also after an error.
    """
    rla_model = checked(model, "disabled(model)")
    before = rla_model.__dict__["_disabled"]
    rla_model.__dict__["_disabled"] = True
    try:
        yield model
    finally:
        rla_model.__dict__["_disabled"] = before
