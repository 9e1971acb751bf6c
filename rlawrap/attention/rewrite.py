"""A module whose own forward passes some of its values through further children.

The class of such a module is a subclass of its old one, with the same name and signature; its
children keep their names, so state dicts only gain keys. Only this module's forward is rewritten
(its children being opaque), so everything around it works as before.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlawrap._torch import pytree
from rlawrap.capture.arguments import Arguments, parameters_of
from rlawrap.capture.generate import compile_graph, compile_source, signature_text
from rlawrap.capture.late_imports import with_late_imports
from rlawrap.capture.leaves import Leaves
from rlawrap.capture.recording import ForwardFailed, place_of, record
from rlawrap.capture.shadow import make_shadow
from rlawrap.capture.trace import CannotFollow, Trace
from rlawrap.capture.unify import unify
from rlawrap.errors import PlanError, TraceError
from rlawrap.flow.alike import name_alike
from rlawrap.flow.references import References
from rlawrap.splice.inplace import sharing

#: A value of the module's own forward (a reference, as in `rlawrap.plan`) and a child's name.
Insertion = tuple[str, str]


def pass_through(module: nn.Module, reference: str, child: str, call: Mapping[str, Any]) -> None:
    """From now on `module`'s forward replaces a value of its own by `child` of that value.

    `child` is a child of the module that its forward does not call yet; `call` is how its callers
    call it (`call_of`). Raises `TraceError` for a forward that cannot be recorded, `PlanError` for
    a value it does not compute.
    """
    if "forward" in vars(module):
        raise PlanError(
            f"attend(model): {reference!r} lies in the forward of a {type(module).__name__} that "
            "was set on the instance (module.forward = …); put that forward into a subclass."
        )
    plain = _plain_class(module)
    insertions = (*module.__dict__.get("_insertions", ()), (reference, child))
    call = dict(call)
    forwards = _forwards(module, plain, insertions, call)
    module.__dict__.update(_insertions=insertions, _call=call, _forwards=forwards)
    module.__class__ = _rewritten_class(plain)


@dataclass(frozen=True)
class Like:
    """A tensor's shape and type."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def empty(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


def call_of(module: nn.Module, args: tuple[Any, ...], kwargs: Any) -> dict[str, Any]:
    """A call of a module: its arguments by name, of tensors what they are like."""
    bound = dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
    like: dict[str, Any] = pytree.tree_map_only(
        Tensor, lambda t: Like(tuple(t.shape), t.dtype), bound
    )
    return like


class Rewritten:
    """Mixed into the class of a module whose forward was rewritten."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_forwards"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)  # type: ignore[arg-type]
        made = _forwards(self, _plain_class(self), state["_insertions"], state["_call"])  # type: ignore[arg-type]
        self.__dict__["_forwards"] = made

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value if name == "_forwards" else copy.deepcopy(value, memo)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return _new, (_plain_class(self),), self.__getstate__()  # type: ignore[arg-type]


def _new(plain: type[nn.Module]) -> nn.Module:
    cls = _rewritten_class(plain)
    return cls.__new__(cls)


def _plain_class(module: nn.Module) -> type[nn.Module]:
    cls = type(module)
    return cls.__mro__[2] if issubclass(cls, Rewritten) else cls


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _rewritten_class(plain: type[nn.Module]) -> type[nn.Module]:
    """One subclass for each class, so that blocks which were of one class still are."""
    if plain not in _CLASSES:
        _CLASSES[plain] = _make_class(plain)
    return _CLASSES[plain]


def _make_class(plain: type[nn.Module]) -> type[nn.Module]:
    parameters = list(inspect.signature(plain.forward).parameters.values())[1:]
    defaults = {f"_{p.name}": p.default for p in parameters if p.default is not p.empty}
    # fx reads a root's parameters off its code, so the signature has to be real.
    taken, given = signature_text(parameters), ", ".join(map(_passed_on, parameters))
    # An index that is a bool is nothing that torch.compile traces in 2.9.
    source = (
        f"def forward(self, {taken}):\n"
        f"    return self._forwards[1 if self.training else 0](self, {given})\n"
    )
    made = compile_source(source, defaults, f"forward of {plain.__name__}")
    body = {
        "forward": made["forward"],
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
    }
    return type(plain.__name__, (Rewritten, plain), body)


def _passed_on(parameter: inspect.Parameter) -> str:
    """A parameter as an argument of the recorded forward."""
    name = parameter.name
    if parameter.kind is parameter.KEYWORD_ONLY:
        return f"{name}={name}"
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"*{name}"
    return f"**{name}" if parameter.kind is parameter.VAR_KEYWORD else name


def _forwards(
    module: nn.Module,
    plain: type[nn.Module],
    insertions: tuple[Insertion, ...],
    call: Mapping[str, Any],
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The rewritten forward for eval and for train mode; one function where one serves both."""
    # Imports of a forward may be the first in a process that unpickles it.
    evaluated, trained = with_late_imports(
        module, lambda: _recorded(module, plain, insertions, call)
    )
    if unify(evaluated, trained) is not None:
        forward = _insert(evaluated, insertions)
        return forward, forward
    name_alike(evaluated, trained)
    return _insert(evaluated, insertions), _insert(trained, insertions)


def _recorded(
    module: nn.Module,
    plain: type[nn.Module],
    insertions: tuple[Insertion, ...],
    call: Mapping[str, Any],
) -> tuple[Trace, Trace]:
    """The module's own forward in eval and in train mode."""
    shadow = make_shadow(module)
    shadow.root.__class__ = plain
    for _, child in insertions:  # a forward that loops over its children would call it, too
        shadow.root._modules.pop(child, None)
    leaves = Leaves([name for name, _ in shadow.root.named_modules() if name])
    parameters = parameters_of(shadow.root)

    def recorded(training: bool) -> Trace:
        given = pytree.tree_map_only(Like, Like.empty, dict(call))
        bound = inspect.BoundArguments(inspect.Signature(list(parameters)), OrderedDict(given))
        arguments = Arguments(bound.args, bound.kwargs, given, parameters)
        try:
            return record(shadow, arguments, training=training, leaves=leaves)
        except CannotFollow as reason:
            raise TraceError(f"{plain.__name__}{place_of(reason)} {reason.what}.") from reason
        except ForwardFailed as problem:
            raise TraceError(f"{plain.__name__} does not run: {problem}") from problem

    return recorded(False), recorded(True)


def _insert(trace: Trace, insertions: tuple[Insertion, ...]) -> Callable[..., Any]:
    refs = References(trace)
    modules = dict(trace.root.named_modules())
    latest: dict[str, fx.Node] = {}
    for reference, child in insertions:
        node = latest.get(reference) or refs.node(reference)
        with trace.graph.inserting_after(node):
            call = trace.graph.call_module(child, (node,))
        node.replace_all_uses_with(call, lambda user, call=call: user is not call)  # type: ignore[misc]
        latest[child] = call
        _, writers = sharing(modules, node)
        if writers:
            _keep_apart(trace, reference, call, min(writers))
    trace.graph.lint()
    return compile_graph(trace.graph, f"forward of {type(trace.root).__name__}")


def _keep_apart(trace: Trace, reference: str, call: fx.Node, writer: fx.Node) -> None:
    """Let a gate read a copy of a view whose tensor is written to by another name.

    Raises `PlanError` where the view is read behind that: the gate's result would not show it.
    """
    if any(writer < user for user in call.users):
        raise PlanError(
            f"attend(model): {reference!r}, in the forward of a {type(trace.root).__name__}, is a "
            f"view of what {writer.name} overwrites before the view is read again. Compute "
            "that out of place."
        )
    with trace.graph.inserting_before(call):
        call.args = (trace.graph.call_method("clone", call.args),)
