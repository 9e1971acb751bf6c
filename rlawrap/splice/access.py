"""What there is to ask of a rewritten network: its base, its own part, and to do without h."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from rlawrap.capture.refusals import is_wrapper
from rlawrap.copying import deep_copy
from rlawrap.errors import PlanError, spelled
from rlawrap.splice.classes import plain_copy, undress
from rlawrap.splice.frozen import Frozen, thaw
from rlawrap.splice.inplace import turn_back
from rlawrap.splice.inside import added_in, rewritten_in
from rlawrap.splice.model import RLAModel


def checked(model: Any, call: str) -> RLAModel:
    """`model`, if it is a whole rewritten network. Raises `PlanError` if not."""
    if not isinstance(model, RLAModel):
        raise PlanError(_not_ours(model, call, _parts(model)))
    _refuse_cut({"": model}, call)
    return model


def checked_parts(model: Any, call: str, *, cut: bool = False) -> dict[str, RLAModel]:
    """The rewritten networks in a model by path; one that is itself rewritten by "".

    Raises `PlanError` where there is none, for a wrapped model, and, unless `cut`, for a backbone.
    """
    parts = _parts(model)
    if not parts or ("" not in parts and is_wrapper(model)):
        raise PlanError(
            _not_ours(model, call, dict.fromkeys(path.partition(".")[0] for path in parts))
        )
    if not cut:
        _refuse_cut(parts, call)
    return parts


def rewritten(model: Any, call: str) -> list[RLAModel]:
    """The rewritten networks in a model, backbones as well.

    Raises `PlanError` where there is none.
    """
    if not isinstance(model, nn.Module):
        raise PlanError(f"{call}: expected a torch.nn.Module, got {type(model).__name__}.")
    found = rewritten_in(model)
    if not found:
        raise PlanError(
            f"{call}: {type(model).__name__} has no hidden state, nor has a part of it. "
            "`model = rlawrap.apply(model)` gives it one."
        )
    return list(found.values())


def _refuse_cut(parts: Mapping[str, RLAModel], call: str) -> None:
    """Raise `PlanError` for the first part that is a backbone."""
    for path, part in parts.items():
        if part.rla.splice.maps is not None:
            what = f"its module {path!r}" if path else "the model"
            raise PlanError(f"{call}: {what} is a backbone; pass the model it was cut from.")


def _parts(model: Any) -> dict[str, RLAModel]:
    return rewritten_in(model) if isinstance(model, nn.Module) else {}


def _not_ours(model: Any, call: str, inside: Iterable[str]) -> str:
    """That a model is none of ours, and the calls for those that it has inside."""
    told = "".join(
        f" Pass the module inside, `rlawrap.{call.replace('model', spelled(path, model))}`."
        for path in inside
    )
    return f"{call}: expected a model made by rlawrap.apply, got {type(model).__name__}.{told}"


def unwrap(model: nn.Module) -> nn.Module:
    """The base network with the present weights, as a copy: same class, keys, mode and outputs as
    the network before `apply`. A model that holds rewritten networks comes back with their bases.
    What `freeze_base` froze is as it was.

    >>> import rlawrap, torchvision
    >>> model = rlawrap.apply(torchvision.models.resnet18(weights=None), k=8)
    >>> type(rlawrap.unwrap(model)).__name__
    'ResNet'
    """
    parts = checked_parts(model, "unwrap(model)")
    if "" not in parts:
        twin = deep_copy(model)
        for part in rewritten_in(twin).values():
            frozen = part.rla.splice.frozen
            undress(part)
            _thaw(part, frozen)
        return twin
    base = plain_copy(model)
    _thaw(base, parts[""].rla.splice.frozen)
    turn_back(base, parts[""].rla.splice.turned)
    return base


def _thaw(base: nn.Module, frozen: Frozen | None) -> None:
    if frozen is not None:
        thaw(base, frozen, type(base))


def rla_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The part of the state dict that `apply` added: the keys that start with `rla.`, or with the
    path of a rewritten network inside and `.rla.`.
    """
    checked_parts(model, "rla_state_dict(model)", cut=True)
    is_added = added_in(model)
    return {key: value for key, value in model.state_dict().items() if is_added(key)}


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """Within this context the model computes what its base does, with the present weights.

    The change is this model's alone; it ends with the context, also after an error.
    """
    with ExitStack() as stack:
        for part in checked_parts(model, "disabled(model)").values():
            stack.enter_context(_disabled(part))
        yield model


@contextmanager
def _disabled(part: RLAModel) -> Iterator[None]:
    splice = part.rla.splice
    before = splice.disabled
    splice.disabled = True
    try:
        yield
    finally:
        splice.disabled = before
