"""Types of tensors by their names, as code has them that is older than `dtype` and `device`.

`x.type()` is `"torch.FloatTensor"` or `"torch.cuda.FloatTensor"`. `torch.FloatTensor` is a class of
sorts, too: the tensors of that type are its instances.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_NAMES: dict[torch.dtype, str] = {
    torch.float32: "Float",
    torch.float64: "Double",
    torch.float16: "Half",
    torch.bfloat16: "BFloat16",
    torch.int64: "Long",
    torch.int32: "Int",
    torch.int16: "Short",
    torch.int8: "Char",
    torch.uint8: "Byte",
    torch.bool: "Bool",
    torch.complex64: "ComplexFloat",
    torch.complex128: "ComplexDouble",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
#: The class of `torch.FloatTensor` and its like.
TensorType: type[Any] = type(torch.FloatTensor)


def type_name(dtype: torch.dtype, device: torch.device) -> str:
    """What `x.type()` says of a dense tensor.

    >>> type_name(torch.float16, torch.device("cuda", 1))
    'torch.cuda.HalfTensor'
    """
    place = "" if device.type == "cpu" else f"{device.type}."
    return f"torch.{place}{_NAMES[dtype]}Tensor"


def plain_type(kind: Any) -> Any:
    """An argument of `x.type(kind)` as a graph may hold it: a class as its name."""
    return f"{kind.__module__}.{kind.__name__}" if isinstance(kind, TensorType) else kind


def dtype_of_type(kind: Any) -> torch.dtype:
    """The dtype that an argument of `x.type(kind)` stands for.

    >>> dtype_of_type("torch.cuda.LongTensor"), dtype_of_type(torch.float64)
    (torch.int64, torch.float64)
    """
    if isinstance(kind, torch.dtype):
        return kind
    name = plain_type(kind).rpartition(".")[2].removesuffix("Tensor")
    if name not in _DTYPES:
        raise ValueError(f"invalid type: {kind!r}")
    return _DTYPES[name]


def is_instance(value: Any, kinds: Any, /) -> bool:
    """`isinstance`, where tensors without memory are of the type that they stand for."""
    if type(kinds) is tuple:
        return any(is_instance(value, kind) for kind in kinds)
    if type(kinds) is TensorType and isinstance(value, Tensor):
        return bool(value.type() == plain_type(kinds))
    return isinstance(value, kinds)
