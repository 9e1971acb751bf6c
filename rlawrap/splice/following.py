"""Whether a network's outputs follow the layer that makes them, seen on a copy without memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap._torch import pytree
from rlawrap.capture.shadow import make_shadow
from rlawrap.errors import PlanError
from rlawrap.splice.record import Splice
from rlawrap.splice.recorded_call import recorded_call
from rlawrap.splice.resized import REPLACE

_FAILURES = (RuntimeError, ValueError, IndexError, AssertionError, TypeError)


def check_following(model: nn.Module, layers: Mapping[str, Iterable[str]]) -> None:
    """Raises `PlanError` where no output of the network has one channel more when a layer has.

    Of a hidden layer the network reads the outputs by parameters, in pairs or by a fixed number.
    `layers` has by the path of each those of the layers whose results are added to its own.
    """
    splice: Splice = model.rla.splice  # type: ignore[union-attr, assignment]
    shadow = make_shadow(model)
    root = shadow.root.eval()
    call = recorded_call(shadow, splice.settings.example_input, splice.plan.input_shape)

    def run() -> list[tuple[int, ...]]:
        with torch.no_grad(), shadow.on_meta():
            made = root(*call.args, **call.kwargs)
        return [tuple(t.shape) for t in pytree.tree_leaves(made) if isinstance(t, Tensor)]

    try:
        before = run()
    except _FAILURES:  # it runs on values alone, and nothing can be told
        return
    for path, shares in layers.items():
        layer = root.get_submodule(path)
        count = _count(layer)
        told = f"reset_classifier: {path} ({type(layer).__name__}) is not made for another number"
        hooks = [root.get_submodule(p).register_forward_hook(_one_more) for p in (path, *shares)]
        try:
            after = run()
        except _FAILURES as error:
            reason = str(error).partition("\n")[0]
            raise PlanError(
                f"{told} of outputs: with {count + 1} in place of {count} the network does not "
                f"run ({reason}); {REPLACE}"
            ) from None
        finally:
            for hook in hooks:
                hook.remove()
        pairs = zip(before, after, strict=True)
        if not any(_follows(small, large, count) for small, large in pairs):
            raise PlanError(
                f"{told} of classes: no output of the network has an axis of its {count} outputs; "
                f"{REPLACE}"
            )


def _axis(layer: nn.Module) -> int:
    """The axis of a layer's outputs, counted from the last."""
    return -1 - (0 if isinstance(layer, nn.Linear) else len(layer.kernel_size))  # type: ignore[arg-type]


def _count(layer: nn.Module) -> int:
    name = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    count: int = getattr(layer, name)
    return count


def _one_more(layer: nn.Module, _: Any, made: Tensor) -> Tensor:
    axis = _axis(layer)
    return torch.cat([made, made.narrow(axis, 0, 1)], axis)


def _follows(small: tuple[int, ...], large: tuple[int, ...], count: int) -> bool:
    """Whether one axis of `count` has grown by one; an axis of one may have been squeezed before.

    >>> _follows((2, 5), (2, 6), 5), _follows((2,), (2, 2), 1), _follows((2, 5), (2, 5), 10)
    (True, True, False)
    """
    grown = [i for i, side in enumerate(large) if side == count + 1]
    kept = [(*small[:i], count + 1, *small[i + 1 :]) == large and small[i] == count
            for i in grown if i < len(small)]  # fmt: skip
    squeezed = [count == 1 and small == (*large[:i], *large[i + 1 :]) for i in grown]
    return any((*kept, *squeezed))
