"""Numbers that know how they follow from the sizes of tensors.

While a call is recorded, `x.shape` and `x.size(0)` hold such numbers. Arithmetic keeps what it
does as a `Term`; a comparison answers with a plain bool and tells `Ask` of it, since the way that
forward takes from there holds only as long as the answer does.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx


@dataclass(frozen=True, eq=False)
class Term:
    """A number as a function of terms, nodes and plain numbers, and what it is in this call."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    value: Any = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What two terms of one meaning have in common."""
        return (self.function, *(_key(a) for a in self.args))

    def roots(self) -> list[fx.Node]:
        """The nodes that the term reads."""
        found: list[fx.Node] = []
        for a in self.args:
            if isinstance(a, fx.Node):
                found.append(a)
            elif isinstance(a, Term):
                found += a.roots()
        return found


def _key(value: Any) -> Any:
    return value.key if isinstance(value, Term) else (type(value), value)


def size(value: Any, axis: int) -> Any:
    """The size of a tensor along an axis, as the root of a term."""
    return value.shape[axis]


#: Called with the term of a condition and its answer.
Ask = Callable[[Term, bool], None]


class _Number:
    """Of both kinds of numbers: what they are made of, and whom a comparison tells."""

    term: Term
    ask: Ask

    #: Above NumPy's own numbers, whose arithmetic would forget the term, and below its arrays.
    __array_priority__ = -1.0

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        value = plain(self)
        return type(value), (value,)


class SizeInt(_Number, int):
    """An integer that follows from sizes."""

    __hash__ = int.__hash__


class SizeFloat(_Number, float):
    """A float that follows from sizes."""

    __hash__ = float.__hash__


class StoredInt(int):
    """A number that forward stored in an earlier call: no size is taken to equal it.

    What a forward keeps for the last size, it makes anew for another; recorded is how it does.
    """

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return not isinstance(other, SizeInt) and int(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other


def stored(value: Any) -> Any:
    """A value whose numbers are taken for stored ones."""
    if type(value) is int:
        return StoredInt(value)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return type(value)(map(stored, value))
    if type(value) is dict:
        return {stored(key): stored(item) for key, item in value.items()}
    return list(map(stored, value)) if type(value) is list else value


def plain(value: Any) -> Any:
    """The number without what it is made of; other values as they are."""
    if isinstance(value, SizeInt):
        return int.__add__(value, 0)
    if isinstance(value, SizeFloat):
        return float.__add__(value, 0.0)
    return value


def term_of(value: Any) -> Any:
    return value.term if isinstance(value, _Number) else value


def number(value: Any, term: Term, ask: Ask) -> Any:
    """A plain number with the term that it is the value of; a bool is told of and stays plain."""
    if isinstance(value, bool):
        ask(term, value)
        return value
    if isinstance(value, (tuple, list)):
        items = [number(v, Term(operator.getitem, (term, i), v), ask) for i, v in enumerate(value)]
        return type(value)(items)
    if not isinstance(value, (int, float)):
        return value
    made: Any = SizeInt(value) if isinstance(value, int) else SizeFloat(value)
    made.term, made.ask = term, ask
    return made


def computed(function: Callable[..., Any], *args: Any) -> Any:
    """`function` of numbers, which keeps what it was made of if one of them does."""
    asking = next((a.ask for a in args if isinstance(a, _Number)), None)
    value = function(*map(plain, args))
    if asking is None or value is NotImplemented:
        return value
    return number(value, Term(function, tuple(map(term_of, args)), value), asking)


def as_int(value: Any) -> int:
    """`int`, of one number, as a function that a graph can call."""
    return int(value)


def as_float(value: Any) -> float:
    """`float`, of one number, as a function that a graph can call."""
    return float(value)


def smallest(*values: Any) -> Any:
    """`min` of some numbers."""
    return min(values)


def largest(*values: Any) -> Any:
    """`max` of some numbers."""
    return max(values)


def float_ceil(value: Any) -> float:
    """`numpy.ceil` of one number."""
    return float(math.ceil(value))


def float_floor(value: Any) -> float:
    """`numpy.floor` of one number."""
    return float(math.floor(value))


#: Functions of NumPy that forwards call on sizes, and what they do to one number.
OF_NUMPY: dict[str, Callable[..., Any]] = {
    "ceil": float_ceil,
    "floor": float_floor,
    "sqrt": math.sqrt,
    "log2": math.log2,
    "abs": abs,
}


#: What a comparison with a stored number answers.
_EQUALITY = {operator.eq: False, operator.ne: True}


def _of_python(value: Any) -> Any:
    """A number of NumPy's as one of Python's; what else there is as it is."""
    theirs = type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0
    return value.item() if theirs else value


def _method(function: Callable[..., Any], reflected: bool = False) -> Callable[..., Any]:
    def method(self: Any, *others: Any) -> Any:
        others = tuple(map(_of_python, others))
        if not all(isinstance(o, (int, float, type(None))) for o in others):
            return NotImplemented
        if others and isinstance(others[0], StoredInt) and function in _EQUALITY:
            return _EQUALITY[function]
        return computed(function, *(*others, self) if reflected else (self, *others))

    return method


_BINARY = "add sub mul truediv floordiv mod pow lshift rshift and_ or_ xor"
_COMPARE = "eq ne lt le gt ge"
_UNARY: dict[str, Callable[..., Any]] = {
    "neg": operator.neg,
    "pos": operator.pos,
    "abs": operator.abs,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
}


def _teach(cls: Any, skipped: str = "") -> None:
    """Give a class of numbers the operators that keep what a number was made of."""
    for name in _BINARY.split():
        if name not in skipped.split():
            function, dunder = getattr(operator, name), name.rstrip("_")
            setattr(cls, f"__{dunder}__", _method(function))
            setattr(cls, f"__r{dunder}__", _method(function, reflected=True))
    for name in _COMPARE.split():
        setattr(cls, f"__{name}__", _method(getattr(operator, name)))
    for name, function in _UNARY.items():
        setattr(cls, f"__{name}__", _method(function))
    cls.__divmod__, cls.__rdivmod__ = _method(divmod), _method(divmod, reflected=True)
    cls.__bool__ = _method(operator.truth)


_teach(SizeInt)
_teach(SizeFloat, skipped="lshift rshift and_ or_ xor")
