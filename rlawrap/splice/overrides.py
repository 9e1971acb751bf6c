"""What a base's class overrides of `nn.Module`, and the rewritten network must do in its place.

The rewritten network is of another class, so the base's own `train` (norms kept frozen) or
`get_extra_state` would be lost. They run on the bare base, which shares the network's modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from rlawrap.splice.model import RLAModel


def overrides(base: nn.Module, method: str) -> bool:
    """Whether a network has a method of its own in place of `nn.Module`'s."""
    return method in vars(base) or getattr(type(base), method) is not getattr(nn.Module, method)


def sets_modes(base: nn.Module) -> bool:
    """Whether a network decides by itself which of its modules follow `train(mode)`."""
    return overrides(base, "train") or overrides(base, "eval")


def set_mode(model: RLAModel, base: nn.Module, mode: bool) -> None:
    """Let the base's own `train` or `eval` decide on its modules; `rla` takes the mode asked for.

    `base` is the bare base, or a copy of it of which `model` has only a part.
    """
    if not mode and overrides(base, "eval"):
        base.eval()
    else:
        base.train(mode)
    named = base.named_modules(remove_duplicate=False)
    modes = {path: module.training for path, module in named}
    for path, module in model.named_modules():
        module.training = modes.get(path, mode)


def forward_extra_state(model: RLAModel, base: nn.Module) -> None:
    """Give the model's class, which is its alone, the base's extra state: nn.Module looks there."""
    for method in ("get_extra_state", "set_extra_state"):
        if overrides(base, method):
            setattr(type(model), method, _on_the_base(method))


def _on_the_base(method: str) -> Callable[..., Any]:
    def call(self: RLAModel, *args: Any) -> Any:
        return getattr(self._bare_base(), method)(*args)

    return call
