"""What is put in place of Python's and PyTorch's own for as long as a call is recorded.

Calls of modules and of custom autograd functions pass by the recorder. In the modules of code that
the network comes from, `int`, `float`, `min`, `max` and `len` keep what a number was made of,
`isinstance` knows types of tensors, cached functions are not cached, caches are put back as they
were, and functions that are kept whole are written down.

The patches are process-wide and there is one set of them: a lock lets one thread record at a time,
and what other threads call meanwhile does what it always did.
"""

from __future__ import annotations

import builtins
import functools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol
from unittest import mock

import torch
from torch import Tensor, nn

from rlawrap._torch import OpPacket, checkpoint_function, scripted_source
from rlawrap.capture.caches import kept
from rlawrap.capture.code import Code
from rlawrap.capture.old_types import is_instance
from rlawrap.capture.sizes import (
    OF_NUMPY,
    SizeFloat,
    SizeInt,
    as_float,
    as_int,
    computed,
    largest,
    smallest,
)

_LOCK = threading.RLock()


class Recording(Protocol):
    """Whom the patches tell; not of what runs while it is paused."""

    paused: int
    code: tuple[Code, ...]

    def call_module(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """What a call of a module gives."""

    def call_whole(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What a function gives that is written down as one operation."""


@contextmanager
def patched(recording: Recording, *, numbers: bool) -> Iterator[None]:
    """Let calls pass by `recording`; with `numbers`, also the arithmetic of the network's code."""
    thread = threading.get_ident()

    def here() -> bool:
        return threading.get_ident() == thread

    with _LOCK, ExitStack() as stack:
        stack.enter_context(_module_calls(recording, here))
        stack.enter_context(_whole_calls(recording, here))
        stack.enter_context(kept(cache for code in recording.code for cache in code.caches))
        for owner, names in _replacements(recording, here, numbers):
            stack.enter_context(_named(owner, names))
        yield


@contextmanager
def _named(owner: Any, names: dict[str, Any]) -> Iterator[None]:
    """Other values under some names of a Python module or a class."""
    before = {name: vars(owner)[name] for name in names if name in vars(owner)}
    for name, value in names.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name in names:
            if name in before:
                setattr(owner, name, before[name])
            else:
                delattr(owner, name)


@contextmanager
def _module_calls(recording: Recording, here: Callable[[], bool]) -> Iterator[None]:
    original = nn.Module.__call__

    @functools.wraps(original)
    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not here():
            return original(module, *args, **kwargs)
        return recording.call_module(module, args, kwargs)

    with mock.patch.object(nn.Module, "__call__", call):
        yield


@contextmanager
def _whole_calls(recording: Recording, here: Callable[[], bool]) -> Iterator[None]:
    """Custom autograd functions and operators of libraries: nothing else tells of their calls."""
    own = vars(torch.autograd.Function)["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return own.__get__(None, cls)(*args, **kwargs)

    operate = OpPacket.__call__

    def applied(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not here() or recording.paused:
            return apply(cls, *args, **kwargs)
        if cls is checkpoint_function():
            return args[0](*args[2:])
        if cls.__module__ == checkpoint_function().__module__:
            recording.paused += 1  # it keeps what a recomputation needs, and computes nothing
            try:
                return apply(cls, *args, **kwargs)
            finally:
                recording.paused -= 1
        return recording.call_whole(_apply_of(cls), args, kwargs)

    def operated(packet: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not here() or recording.paused:
            return operate(packet, *args, **kwargs)
        return recording.call_whole(packet, args, kwargs)

    with (
        mock.patch.object(torch.autograd.Function, "apply", classmethod(applied)),
        mock.patch.object(OpPacket, "__call__", operated),
    ):
        yield


@functools.cache
def _apply_of(cls: Any) -> Callable[..., Any]:
    """`cls.apply` as a plain function, which a graph can name."""

    def apply(*args: Any) -> Any:
        return cls.apply(*args)

    apply.__name__ = apply.__qualname__ = cls.__name__
    apply.__module__ = cls.__module__
    return apply


def _replacements(
    recording: Recording, here: Callable[[], bool], numbers: bool
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """For each Python module that the network's code lies in, what its names become."""
    for code in recording.code:
        names: dict[str, Any] = {name: value.__wrapped__ for name, value in code.cached.items()}
        if not isinstance(code.owner, type) and "isinstance" not in vars(code.owner):
            names["isinstance"] = is_instance
        if numbers and not isinstance(code.owner, type):
            names.update({n: v for n, v in _NUMBERS.items() if n not in vars(code.owner)})
            names.update(dict.fromkeys(code.maths, _MATH))
            names.update({n: _Numpy(vars(code.owner)[n]) for n in code.numpys})
        for name, function in code.whole.items():
            names[name] = _written_down(recording, function, here)
        if names:
            yield code.owner, names


def _written_down(
    recording: Recording, function: Callable[..., Any], here: Callable[[], bool]
) -> Callable[..., Any]:
    source = scripted_source(function)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not here() or recording.paused:
            return function(*args, **kwargs)
        if source is not None:  # what was compiled takes no meta tensors; its source is followed
            return source(*args, **kwargs)
        return recording.call_whole(function, args, kwargs)

    return functools.update_wrapper(call, function, updated=())


class _Builtin(type):
    """Classes that stand for a builtin one: in `isinstance` and `==` they are that one."""

    stands_for: type

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.stands_for)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.stands_for)

    def __eq__(cls, other: object) -> bool:
        return other is cls.stands_for or other is cls

    def __hash__(cls) -> int:
        return hash(cls.stands_for)


class _Int(int, metaclass=_Builtin):
    stands_for = int

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
        if len(args) == 1 and isinstance(args[0], (SizeInt, SizeFloat)):
            return computed(as_int, args[0])
        if len(args) == 1 and isinstance(args[0], Tensor):
            return _Int(args[0].item())
        return builtins.int(*args, **kwargs)


class _Float(float, metaclass=_Builtin):
    stands_for = float

    def __new__(cls, *args: Any) -> Any:  # type: ignore[misc]
        if len(args) == 1 and isinstance(args[0], (SizeInt, SizeFloat)):
            return computed(as_float, args[0])
        if len(args) == 1 and isinstance(args[0], Tensor):
            return _Float(args[0].item())
        return builtins.float(*args)


def _extreme(function: Callable[..., Any], kept: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        values = tuple(args[0]) if len(args) == 1 and not kwargs else args
        if kwargs or not any(isinstance(v, (SizeInt, SizeFloat)) for v in values):
            return (
                function(values, **kwargs)
                if len(args) == 1 and not kwargs
                else function(*args, **kwargs)
            )
        return computed(kept, *values)

    return call


def _math(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Of numbers in a list (`math.prod`) Python itself calls the operators.
    if kwargs or not any(isinstance(a, (SizeInt, SizeFloat)) for a in args):
        return function(*args, **kwargs)
    return computed(function, *args)


class _Math:
    """The module `math`, whose functions keep what a number was made of."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(math, name)
        if not callable(value):
            return value
        return functools.partial(_math, value)


_MATH = _Math()


class _Numpy:
    """NumPy, whose rounding of one number and roots keep what it was made of."""

    def __init__(self, numpy: Any) -> None:
        self.__dict__["numpy"] = numpy

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.numpy, name)
        ours = OF_NUMPY.get(name)
        if ours is None:
            return value

        @functools.wraps(value, updated=())
        def call(*args: Any, **kwargs: Any) -> Any:
            alone = len(args) == 1 and not kwargs and isinstance(args[0], (SizeInt, SizeFloat))
            return computed(ours, *args) if alone else value(*args, **kwargs)

        return call


def _len(value: Any, /) -> Any:
    return value.shape[0] if isinstance(value, Tensor) and value.dim() else builtins.len(value)


_NUMBERS: dict[str, Any] = {
    "int": _Int,
    "float": _Float,
    "min": _extreme(builtins.min, smallest),
    "max": _extreme(builtins.max, largest),
    "len": _len,
}
