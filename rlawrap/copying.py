"""Deep copies of modules, also of those that a forward left tensors behind in.

PyTorch copies only tensors that a user made. `weight_norm` and `spectral_norm` by hooks keep the
weight that they computed as an attribute, and so do modules that store an activation.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor
from torch.overrides import TorchFunctionMode

T = TypeVar("T")


class _Copying(TorchFunctionMode):
    """Copies a computed tensor without the graph that computed it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__ or args[0].is_leaf:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone()
        return memo[id(tensor)]


def deep_copy(value: T, memo: dict[int, Any] | None = None) -> T:
    """`copy.deepcopy`, in which a tensor that was computed becomes one that was not.

    >>> import torch
    >>> weight = torch.ones(2, requires_grad=True) * 2
    >>> deep_copy(weight)
    tensor([2., 2.])
    """
    with _Copying():
        return copy.deepcopy(value, memo)
