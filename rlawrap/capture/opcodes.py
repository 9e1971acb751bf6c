"""Whether a function of tensors was called by its name or by an operator: `x.add_(y)`, `x += y`."""

from __future__ import annotations

import dis
import operator
from collections.abc import Callable
from types import FrameType
from typing import Any

#: By the name that PyTorch gives the function: Python's operator for it.
_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "__truediv__": operator.truediv,
    "__div__": operator.truediv,
    "__floordiv__": operator.floordiv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "pow": operator.pow,
    "__pow__": operator.pow,
    "matmul": operator.matmul,
    "__and__": operator.and_,
    "__or__": operator.or_,
    "__xor__": operator.xor,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "bitwise_not": operator.invert,
    "neg": operator.neg,
    "positive": operator.pos,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "__eq__": operator.eq,
    "__ne__": operator.ne,
    "add_": operator.iadd,
    "sub_": operator.isub,
    "mul_": operator.imul,
    "div_": operator.itruediv,
    "__itruediv__": operator.itruediv,
    "__idiv__": operator.itruediv,
    "pow_": operator.ipow,
    "__ipow__": operator.ipow,
}
#: Functions that Python calls for its operators alone, with the operands exchanged.
_REFLECTED: dict[str, Callable[..., Any]] = {
    "__rsub__": operator.sub,
    "__rdiv__": operator.truediv,
    "__rtruediv__": operator.truediv,
    "__rfloordiv__": operator.floordiv,
    "__rpow__": operator.pow,
    "__rmod__": operator.mod,
    "__rmatmul__": operator.matmul,
}
_OPCODES = ("BINARY_", "INPLACE_", "UNARY_", "COMPARE_OP")


def as_operator(
    name: str, args: tuple[Any, ...], kwargs: Any, frame: FrameType | None
) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """Python's operator and its operands for a call of a tensor's method, or None."""
    if kwargs or len(args) > 2:
        return None
    if name in _REFLECTED and len(args) == 2:
        return _REFLECTED[name], args[::-1]
    function = _OPERATORS.get(name)
    if function is None or frame is None:
        return None
    opcode = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    return (function, args) if opcode.startswith(_OPCODES) else None


def asserted(frame: FrameType | None) -> bool:
    """Whether the value whose truth a frame asks for at this moment stands in an `assert`."""
    if frame is None:
        return False
    here = frame.f_lasti
    code = [i for i in dis.get_instructions(frame.f_code) if i.offset >= here]
    names = ("TO_BOOL", "CACHE", "NOT_TAKEN", "COMPARE_OP", "CONTAINS_OP", "IS_OP")
    code = [i for i in code if i.opname not in names]
    return (
        len(code) > 1
        and code[0].opname.startswith("POP_JUMP")
        and code[0].opname.endswith("IF_TRUE")
        and (
            code[1].opname == "LOAD_ASSERTION_ERROR"
            or (code[1].opname == "LOAD_COMMON_CONSTANT" and code[1].argval is AssertionError)
        )
    )


def sets_attributes(function: Any) -> bool:
    """Whether the code of a function, method or callable object sets attributes of something."""
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__code__"):
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return code is not None and any(
        i.opname == "STORE_ATTR" or i.argval == "setattr" for i in dis.get_instructions(code)
    )


def frame_of_network(frame: FrameType | None) -> FrameType | None:
    """The nearest frame outside torch and this package's capture."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(("torch.", "rlawrap.capture.")):
            return frame
        frame = frame.f_back
    return None
