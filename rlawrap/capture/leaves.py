"""Which modules are kept whole in a graph: elementary layers, and what the user asks for."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from rlawrap._torch import ConvNd, DropoutNd, NormBase
from rlawrap.capture.opcodes import sets_attributes
from rlawrap.errors import PlanError

LEAF_BASES: tuple[type, ...] = (
    ConvNd,
    nn.Linear,
    NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
    DropoutNd,
    nn.ReLU,
    nn.ReLU6,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.LeakyReLU,
    nn.ELU,
    nn.PReLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Mish,
)

#: The Python modules of other libraries that are asked for here.
LIBRARIES = frozenset(("torchvision", "einops", "einops.layers.torch", "timm"))


def library_leaves() -> tuple[tuple[type, ...], Callable[[type], bool]]:
    """Leaf classes of torchvision, timm and einops; none is imported unless the program has it."""
    leaves: list[type] = []
    if "torchvision" in sys.modules:
        from torchvision import ops

        leaves += [ops.StochasticDepth, ops.DropBlock2d, ops.DropBlock3d]
        leaves += [ops.FrozenBatchNorm2d, ops.DeformConv2d]
    if "einops.layers.torch" in sys.modules:
        from einops.layers import torch as einops_layers

        leaves += [einops_layers.Rearrange, einops_layers.Reduce, einops_layers.EinMix]
    if "timm" not in sys.modules:
        return tuple(leaves), lambda _: False
    from timm import layers

    leaves += [layers.DropPath, layers.DropBlock2d]
    # NormFreeBlock is registered for its in-place add alone, which relinking takes care of.
    no_trace = {m for m in layers.get_notrace_modules() if m.__name__ != "NormFreeBlock"}
    return tuple(leaves), no_trace.__contains__


def library_functions() -> tuple[Callable[..., Any], ...]:
    """Functions that timm asks not to trace into, and those of einops, which cache sizes."""
    functions: list[Callable[..., Any]] = []
    if "einops" in sys.modules:
        import einops

        functions += [einops.rearrange, einops.reduce, einops.repeat, einops.einsum]
    if "timm" in sys.modules:
        from timm import layers

        functions += [f for f in layers.get_notrace_functions() if callable(f)]
    return tuple(functions)


class Leaves:
    """Says of a module whether it is kept whole: an elementary layer, or one that was asked for."""

    def __init__(
        self, asked_for: Iterable[type | str] = (), unfollowed: Iterable[str] = ()
    ) -> None:
        self.asked_for = (*asked_for, *unfollowed)
        self._classes, self._untraced = library_leaves()

    def keeps(self, module: nn.Module, path: str) -> bool:
        for leaf in self.asked_for:
            if leaf == path or (isinstance(leaf, type) and isinstance(module, leaf)):
                return True
        if isinstance(module, (*LEAF_BASES, *self._classes)) or self._untraced(type(module)):
            return not (isinstance(module, ConvNd) and _remembers(type(module).forward))
        torch_own = type(module).__module__.startswith(("torch.nn.", "torch.ao.nn."))
        return torch_own and not isinstance(module, nn.Sequential)


@functools.cache
def _remembers(forward: Callable[..., Any]) -> bool:
    """Whether a convolution's forward sets attributes: a causal one keeps the last frames.

    Kept whole, a call would read what an earlier one left, where sizes are tried and in training.
    """
    return sets_attributes(forward)


def as_leaves(leaf_modules: Any) -> tuple[type | str, ...]:
    """`leaf_modules=` as a tuple; a single class or path will do. Raises `PlanError`."""
    if isinstance(leaf_modules, (str, type)):
        return (leaf_modules,)
    if isinstance(leaf_modules, Iterable):
        leaves = tuple(leaf_modules)
        if all(isinstance(leaf, (str, type)) for leaf in leaves):
            return leaves
    raise PlanError(f"leaf_modules={leaf_modules!r}: give classes or module paths.")
