"""Counting: one forward pass of a shadow of the model on fake tensors, call by call.

Nothing is computed, no activation is allocated, and the model itself is never run: the shadow is a
copy whose tensors have shapes and no data. `torch.utils.flop_counter.FlopCounterMode` counts the
convolutions and matrix products; what the paper's count needs besides is given to it as formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlawrap._torch import clear_hooks
from rlawrap.capture.shadow import Shadow, make_shadow
from rlawrap.copying import deep_copy
from rlawrap.errors import PlanError

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Ops:
    """What one or more calls did, each a count for the whole batch."""

    conv_macs: int = 0  # multiply-accumulates of convolutions
    matmul_macs: int = 0  # of linear layers and other matrix products
    norm_elements: int = 0  # elements that came out of batch norms
    pool_elements: int = 0  # outputs of windowed average pooling, inputs of global

    @property
    def macs(self) -> int:
        return self.conv_macs + self.matmul_macs

    def __add__(self, other: Ops) -> Ops:
        return Ops(**{k: n + getattr(other, k) for k, n in vars(self).items()})

    def __sub__(self, other: Ops) -> Ops:
        return Ops(**{k: n - getattr(other, k) for k, n in vars(self).items()})


@dataclass(frozen=True)
class Call:
    """What ran between two changes of module: the innermost module's path, and the operations.

    The path is empty for what the network's own `forward` does between its modules.
    """

    path: str
    ops: Ops


def _first_output_elements(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return prod(out_shape[0])


def _output_elements(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return prod(out_shape)


def _spatial_mean_elements(
    x: Sequence[int], dims: Sequence[int] | None = None, *args: Any, **kwargs: Any
) -> int:
    """Inputs of a mean over every spatial axis; a mean over anything else is no pooling."""
    spatial = set(range(2, len(x)))
    return prod(x) if spatial and {d % len(x) for d in dims or ()} == spatial else 0


def _adaptive_pool_elements(x: Sequence[int], *args: Any, **kwargs: Any) -> int:
    return prod(x)


def _packets(names: Sequence[str]) -> list[Any]:
    """The operators of these names that this version of torch has."""
    return [getattr(aten, name) for name in names if hasattr(aten, name)]


_CONVOLUTIONS = _packets(
    (
        "convolution",
        "_convolution",
        "convolution_overrideable",
        "cudnn_convolution",
        "miopen_convolution",
        "_slow_conv2d_forward",
    )
)
_BATCH_NORMS = _packets(
    (
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "_batch_norm_with_update",
        "_batch_norm_no_update",
        "cudnn_batch_norm",
        "miopen_batch_norm",
    )
)
_POOLS: dict[Any, Callable[..., int]] = {
    **dict.fromkeys(_packets(("avg_pool2d", "avg_pool3d")), _output_elements),
    # A 1d pool is a 2d pool by the time it is counted; adaptive pooling to 1 is a mean.
    **dict.fromkeys(_packets(("mean",)), _spatial_mean_elements),
    **dict.fromkeys(
        _packets(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d")), _adaptive_pool_elements
    ),
}


class _Recorder:
    """Splits a FlopCounterMode's running totals at every entry to and exit from a module."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter = counter
        self.calls: list[Call] = []
        self.stack = [""]
        self.seen = Ops()

    def totals(self) -> Ops:
        convs = matmuls = norms = pools = 0
        for packet, count in self.counter.flop_counts["Global"].items():
            if packet in _BATCH_NORMS:
                norms += count
            elif packet in _POOLS:
                pools += count
            elif packet in _CONVOLUTIONS:
                convs += count
            else:
                matmuls += count
        # FlopCounterMode counts two operations for each multiply-accumulate.
        return Ops(
            conv_macs=convs // 2,
            matmul_macs=matmuls // 2,
            norm_elements=norms,
            pool_elements=pools,
        )

    def flush(self, *, always: bool = False) -> None:
        now = self.totals()
        if always or now != self.seen:
            self.calls.append(Call(self.stack[-1], now - self.seen))
            self.seen = now

    def enter(self, path: str) -> Callable[..., None]:
        def hook(*args: Any) -> None:
            self.flush()
            self.stack.append(path)

        return hook

    def leave(self, *args: Any) -> None:
        self.flush(always=True)
        self.stack.pop()


def shadow_of(model: nn.Module) -> Shadow:
    """The shadow of `model` in eval mode: on meta tensors, without hooks that read activations."""
    shadow = make_shadow(model)
    shadow.root.eval()
    return shadow


def skeleton_of(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device, without the hooks that read activations."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta")) for p in model.parameters()}
    memo |= {id(b): b.to("meta") for b in model.buffers()}
    return _without_hooks(deep_copy(model, memo))


def _without_hooks(model: nn.Module) -> nn.Module:
    for module in model.modules():
        clear_hooks(module)
    return model


def input_of(shadow: Shadow, shape: Sequence[int]) -> torch.Tensor:
    """A meta tensor of this shape, with the type of the model's parameters."""
    return torch.empty(tuple(shape), dtype=shadow.dtype, device="meta")


def count_calls(model: nn.Module, shape: Sequence[int]) -> list[Call]:
    """Every call of a module, in the order in which they end, for an input of this shape.

    A module that calls others appears again for what it did itself between and after them.

    Raises `PlanError` where the model does not run at that shape.
    """
    shadow = shadow_of(model)
    x = input_of(shadow, shape)
    formulas = {**dict.fromkeys(_BATCH_NORMS, _first_output_elements), **_POOLS}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    recorder = _Recorder(counter)
    for path, module in shadow.root.named_modules():
        if path:
            # Ours come first in and last out, so that a hook of the model's own is inside.
            module.register_forward_pre_hook(recorder.enter(path), prepend=True)
            module.register_forward_hook(recorder.leave)
    try:
        with torch.no_grad(), shadow.on_meta(), counter:
            shadow.root(x)
            recorder.flush()
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PlanError(
            f"cost: {type(model).__name__} does not run on an input of shape {tuple(shape)}: "
            f"{reason}. Pass size= (an int, or one number per spatial axis) or in_channels=."
        ) from error
    return recorder.calls
