"""What is counted of the operations of PyTorch, and how: MACs, norms and pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

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


def _deformed_flops(
    x: Sequence[int], weight: Sequence[int], *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Those of an ordinary convolution of this weight and output; sampling the input is not in."""
    return 2 * out_shape[0] * prod(out_shape[2:]) * prod(weight)


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


def _deformed() -> list[Any]:
    """The deformable convolution of torchvision, if the program has imported it."""
    theirs = torch.ops.torchvision
    return [theirs.deform_conv2d] if hasattr(theirs, "deform_conv2d") else []


def counter() -> FlopCounterMode:
    """PyTorch's counter, taught what the paper's count needs and what PyTorch does not know."""
    formulas = {
        **dict.fromkeys(_BATCH_NORMS, _first_output_elements),
        **_POOLS,
        **dict.fromkeys(_deformed(), _deformed_flops),
    }
    return FlopCounterMode(display=False, custom_mapping=formulas)


def counted(counter: FlopCounterMode) -> Ops:
    """What a counter has counted so far."""
    convs = matmuls = norms = pools = 0
    convolutions = (*_CONVOLUTIONS, *_deformed())
    for packet, count in counter.flop_counts["Global"].items():
        if packet in _BATCH_NORMS:
            norms += count
        elif packet in _POOLS:
            pools += count
        elif packet in convolutions:
            convs += count
        else:
            matmuls += count
    # FlopCounterMode counts two operations for each multiply-accumulate.
    return Ops(
        conv_macs=convs // 2, matmul_macs=matmuls // 2, norm_elements=norms, pool_elements=pools
    )


def convolution_reads(operator: Any, args: Sequence[Any]) -> tuple[int, int] | None:
    """The channels and the spatial axes that a convolution reads; None for other operators."""
    if operator.overloadpacket is not aten.convolution:
        return None
    weight, transposed, groups = args[1], args[6], args[8]
    return (weight.shape[0] if transposed else weight.shape[1] * groups), weight.dim() - 2
