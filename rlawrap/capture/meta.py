"""Tensors without memory that say they lie where the network's tensors do.

They are PyTorch's own meta tensors, so their class is `torch.Tensor` and every shape is PyTorch's
answer. Only what is said of their device is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rlawrap._torch import CONSTRUCTORS, FakeTensorMode, pytree, quiet_fakes
from rlawrap.capture.old_types import dtype_of_type, type_name

_META = torch.device("meta")
_MOVES = frozenset({Tensor.cpu, Tensor.cuda})
_ASKS_DEVICE = frozenset("is_cuda is_cpu is_mps is_xpu is_xla is_meta".split())


def empty_like(tensor: Tensor) -> Tensor:
    """A meta tensor of the shape, strides and type of a tensor."""
    if tensor.layout is not torch.strided:
        return tensor.to(_META)
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META)


def attribute_name(function: Any) -> str | None:
    """The attribute that a getter of tensors reads, or None for other functions."""
    if getattr(function, "__name__", "") != "__get__":
        return None
    return str(function.__self__.__name__)


class OnMeta(TorchFunctionMode):
    """Every tensor that is made lies on meta, and says that it lies on `device`."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.on_meta(func, args, kwargs or {})

    def on_meta(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of torch; what it makes lies on meta."""
        asked = attribute_name(func)
        if asked == "device":
            return self.device
        if asked in _ASKS_DEVICE:
            return asked == f"is_{self.device.type}"
        if func in _MOVES:
            return args[0]
        if func is Tensor.get_device:
            return -1 if self.device.index is None else self.device.index
        if func is Tensor.type:
            return self._old_type(*args, **kwargs)
        if "device" in kwargs or func in CONSTRUCTORS:
            kwargs = {**kwargs, "device": _META}
            kwargs.pop("pin_memory", None)
        if func is Tensor.to and len(args) > 1:
            args = tuple(_META if _is_device(a) else a for a in args)
        return call(func, args, kwargs)

    def _old_type(self, tensor: Tensor, kind: Any = None, non_blocking: bool = False) -> Any:
        if kind is None:
            return type_name(tensor.dtype, self.device)
        return tensor.to(dtype_of_type(kind))


def _is_device(value: Any) -> bool:
    if isinstance(value, str):
        return value.partition(":")[0] in ("cpu", "cuda", "mps", "xpu", "meta")
    return isinstance(value, torch.device)


def call(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a function on meta tensors, or on their like where it has no kernel for them."""
    try:
        return func(*args, **kwargs)
    except NotImplementedError:
        return _fake(func, args, kwargs)
    except RuntimeError:
        moved = pytree.tree_map_only(Tensor, _moved, (args, kwargs))
        leaves = zip(pytree.tree_leaves((args, kwargs)), pytree.tree_leaves(moved), strict=True)
        if all(a is b for a, b in leaves):
            raise
        return func(*moved[0], **moved[1])


def _moved(tensor: Tensor) -> Tensor:
    return tensor if tensor.device == _META else empty_like(tensor)


def _fake(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """PyTorch's fake tensors have more ways to find a shape; they are no `torch.Tensor` to see."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with quiet_fakes(), mode:

        def make(tensor: Tensor) -> Tensor:
            return torch.empty(tensor.shape, dtype=tensor.dtype)

        fakes = pytree.tree_map_only(Tensor, make, (args, kwargs))
        if kwargs.get("device") is not None:
            fakes[1]["device"] = "cpu"
        out = func(*fakes[0], **fakes[1])
    return pytree.tree_map_only(Tensor, empty_like, out)
