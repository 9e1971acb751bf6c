"""What there is to ask of a rewritten network: its base, its own part, and to do without h."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from rlawrap.design.names import is_added
from rlawrap.errors import PlanError
from rlawrap.splice.classes import plain_copy
from rlawrap.splice.frozen import thaw
from rlawrap.splice.model import RLAModel


def checked(model: Any, call: str) -> RLAModel:
    """`model`, if it is a whole rewritten network. Raises `PlanError` if not."""
    if not isinstance(model, RLAModel):
        inside = [
            n for n in ("module", "_orig_mod") if isinstance(getattr(model, n, None), RLAModel)
        ]
        told = "".join(
            f" Pass the module inside, `rlawrap.{call.replace('model', f'model.{name}')}`."
            for name in inside
        )
        raise PlanError(
            f"{call}: expected a model made by rlawrap.apply, got {type(model).__name__}.{told}"
        )
    if model.rla.splice.maps is not None:
        raise PlanError(f"{call}: the model is a backbone; pass the model it was cut from.")
    return model


def parts(model: nn.Module) -> list[tuple[str, RLAModel]]:
    """The rewritten networks in a model, itself or parts of it, with their paths."""
    return [(path, m) for path, m in model.named_modules() if isinstance(m, RLAModel)]


def rewritten(model: Any, call: str) -> list[tuple[str, RLAModel]]:
    """`parts` of a model, of which there are some. Raises `PlanError` if not."""
    if not isinstance(model, nn.Module):
        raise PlanError(f"{call}: expected a torch.nn.Module, got {type(model).__name__}.")
    found = parts(model)
    if not found:
        raise PlanError(
            f"{call}: {type(model).__name__} has no hidden state, nor has a part of it. "
            "`model = rlawrap.apply(model)` gives it one."
        )
    return found


def unwrap(model: nn.Module) -> nn.Module:
    """The base network with the present weights, as a copy: same class, keys, mode and outputs as
    the network before `apply`. What `freeze_base` froze is as it was.

    >>> import rlawrap, torchvision
    >>> model = rlawrap.apply(torchvision.models.resnet18(weights=None), k=8)
    >>> type(rlawrap.unwrap(model)).__name__
    'ResNet'
    """
    rla_model = checked(model, "unwrap(model)")
    base = plain_copy(rla_model)
    frozen = rla_model.rla.splice.frozen
    if frozen is not None:
        thaw(base, frozen, type(base))
    modules = dict(base.named_modules())
    for path in rla_model.rla.splice.turned:
        modules[path].inplace = True  # type: ignore[assignment]
    return base


def rla_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The part of the state dict that `apply` added: the keys that start with `rla.`."""
    state = checked(model, "rla_state_dict(model)").state_dict()
    return {key: value for key, value in state.items() if is_added(key)}


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """Within this context the model computes what its base does, with the present weights.

    The change is this model's alone; it ends with the context, also after an error.
    """
    splice = checked(model, "disabled(model)").rla.splice
    before = splice.disabled
    splice.disabled = True
    try:
        yield model
    finally:
        splice.disabled = before
