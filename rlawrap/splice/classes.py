"""The class of a rewritten network: one of its own, below the base's.

`torch.nn.utils.parametrize` and `fully_shard` change what a module does in the same way. The class
is made once and never changed; copies of a model share it.
"""

from __future__ import annotations

import functools
import inspect as pyinspect
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import fx, nn

from rlawrap.capture.bound import put_back
from rlawrap.capture.generate import compile_source, signature_text
from rlawrap.copying import deep_copy
from rlawrap.design.names import ROOT
from rlawrap.errors import PlanError
from rlawrap.splice.containers import container_methods
from rlawrap.splice.guards import guard, remove_guards
from rlawrap.splice.inplace import turn_back
from rlawrap.splice.record import Splice

Mixin = TypeVar("Mixin", bound=nn.Module)

#: With a network's id the key, in a memo of `copy.deepcopy`, of the base that is copied for it.
_IN_COPY = "the base of a rewritten network"


def make_class(
    mixin: type[Mixin],
    base: type[nn.Module],
    forward: Callable[..., Any],
    methods: Iterable[str] = (),
    own: nn.Module | None = None,
) -> type[Mixin]:
    """A class of `mixin` and `base` whose `forward` has the arguments of the function `forward`.

    `methods` names those of the base that run with h. What `own`, the network, has itself under a
    name of the mixin's stays found under it.
    """
    body: dict[str, Any] = {
        "forward": _forward(base, forward),
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        **container_methods(base, _plain_view),
    }
    for name in methods:
        body[name] = _method(base, name)
    for name in ("plan", "config", *getattr(mixin, "shown", ())):
        if not hasattr(base if own is None else own, name):
            body[name] = _shown(name)
    for name in set(dir(mixin)) - set(dir(nn.Module)):
        if own is not None and any(name in table for table in tables_of(own)):
            body[name] = _entry(name)
    if issubclass(base, fx.GraphModule):
        body["graph"] = property(lambda self: self.rla.splice.programs[self.training].graph)
        body["recompile"] = _recompile
    name = f"RLA{base.__name__}"
    return types.new_class(name, (mixin, base), exec_body=lambda space: space.update(body))


def _forward(base: type[nn.Module], function: Callable[..., Any]) -> Callable[..., Any]:
    # wraps: fx and others read the arguments' names off the function behind this one.
    @functools.wraps(function)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        splice: Splice = self.rla.splice
        if splice.disabled:
            return base.forward(self, *args, **kwargs)
        if splice.watch.modes and not torch.compiler.is_compiling():
            splice.watch.check(self.training)
        function = splice.function(self)
        if torch.compiler.is_compiling():
            return function(self, *args, **kwargs)
        if any(isinstance(value, fx.Proxy) for value in (*args, *kwargs.values())):
            function = splice.written(self)
        try:
            return function(self, *args, **kwargs)
        except (RuntimeError, NotImplementedError) as error:
            empty = _without_values(self)
            if empty is None:
                raise
            raise PlanError(
                f"{ROOT}.{empty} lies on the meta device and has no values: give the base its "
                "weights and call rlawrap.initialize(model)."
            ) from error

    return forward


def _without_values(model: nn.Module) -> str | None:
    """A layer of h on the meta device, where not all of the base lies there as well."""
    rla = model.get_submodule(ROOT)
    if all(p.is_meta for p in bare(model).parameters()):
        return None
    return next((name for name, p in rla.named_parameters() if p.is_meta), None)


def _method(base: type[nn.Module], name: str) -> Callable[..., Any]:
    """A method with the base's arguments that runs with h, or is refused by name."""
    original = getattr(base, name)

    def run(self: Any, given: dict[str, Any]) -> Any:
        splice: Splice = self.rla.splice
        program = splice.programs[self.training]
        method = program.methods.get(name)
        if method is None or method.plain is None or method.hooked is None:
            reason = method.graph.refused if method is not None else "this mode does not call it"
            raise PlanError(
                f"{name}() of {base.__name__} would run without the hidden state and cannot be "
                f"rewritten: {reason}. Call the model; inside rlawrap.disabled(model) the method "
                "is the base's."
            )
        for argument, value in method.graph.constants.items():
            if given[argument] is not value and given[argument] != value:
                raise PlanError(
                    f"{name}({argument}={given[argument]!r}): the rewritten method runs with "
                    f"{argument}={value!r} alone, as the network's forward calls it. Inside "
                    "rlawrap.disabled(model) the method is the base's."
                )
        if method.graph.graph is program.graph:  # it does all that forward does
            function = program.function(splice.form(self))
        else:
            function = method.hooked if splice.has_hooks(self) else method.plain
        return function(self, *[given[argument] for argument in method.graph.inputs])

    bind = _binder(original)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.rla.splice.disabled:
            return original(self, *args, **kwargs)
        return run(self, bind(*args, **kwargs))

    return method


def _binder(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """A function of a method's arguments, self left out, that returns them by name.

    It is generated, since `inspect.Signature.bind` is nothing that torch.compile can trace.
    """
    parameters = list(pyinspect.signature(function).parameters.values())[1:]
    defaults = {f"_{p.name}": p.default for p in parameters if p.default is not p.empty}
    text, names = signature_text(parameters), [p.name for p in parameters]
    result = ", ".join(f"{n!r}: {n}" for n in names)
    source = f"def bind({text}):\n    return {{{result}}}\n"
    bind: Callable[..., dict[str, Any]] = compile_source(source, defaults, "arguments")["bind"]
    return bind


def _shown(name: str) -> property:
    return property(lambda self: getattr(self.rla, name), doc=f"`rla.{name}`.")


def _recompile(self: Any) -> Any:
    raise PlanError(
        "recompile(): the graph of a rewritten network is not edited by hand; edit the base's "
        "(rlawrap.unwrap(model)) and apply again."
    )


def tables_of(module: nn.Module) -> tuple[dict[str, Any], ...]:
    """Where a module keeps its children, parameters and buffers; properties of its class and
    methods stand before them."""
    return module._modules, module._parameters, module._buffers


def _entry(name: str) -> property:
    def read(self: nn.Module) -> Any:
        return next(table[name] for table in tables_of(self) if name in table)

    return property(read)


def bare(model: nn.Module) -> nn.Module:
    """The base of a rewritten network, sharing its modules and tensors; not to be given away."""
    splice: Splice = model.rla.splice  # type: ignore[union-attr, assignment]
    view: nn.Module = object.__new__(splice.base_class)
    view.__dict__.update(model.__dict__)
    for table in ("_modules", "_parameters", "_buffers"):
        view.__dict__[table] = dict(model.__dict__[table])
    view._modules.pop(ROOT, None)
    return view


def _plain_view(model: nn.Module) -> nn.Module:
    """The base of a rewritten network as `bare` gives it, of the user's own class."""
    splice: Splice = model.rla.splice  # type: ignore[union-attr, assignment]
    return put_back(bare(model), splice.base_class)


def bare_copy(model: nn.Module, memo: dict[Any, Any] | None = None) -> nn.Module:
    """A deep copy of the base of a rewritten network, as the base's own class copies itself.

    What refers to the network in there, such as a method bound to it, refers to the copy.
    """
    memo = {} if memo is None else memo
    view = bare(model)
    memo[_IN_COPY, id(model)] = view
    twin: nn.Module = deep_copy(view, memo)
    remove_guards(twin)
    return twin


def copy_under_way(model: nn.Module, memo: dict[Any, Any]) -> Any:
    """What `bare_copy` makes of a network, if it is at it; else None."""
    view = memo.get((_IN_COPY, id(model)))
    return None if view is None else memo.get(id(view))


def plain_copy(model: nn.Module, memo: dict[Any, Any] | None = None) -> nn.Module:
    """A deep copy of the base as the user had it, with its bound methods on the instance."""
    splice: Splice = model.rla.splice  # type: ignore[union-attr, assignment]
    return put_back(bare_copy(model, memo), splice.base_class)


def copies_itself(cls: type) -> bool:
    """Whether a class says itself how its instances are copied."""
    names = ("__deepcopy__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__")
    return any(getattr(cls, n, None) is not getattr(nn.Module, n, None) for n in names)


def dress(base: nn.Module, rla: nn.Module, cls: type[nn.Module]) -> Any:
    """Make a base into a rewritten network of class `cls`, in place; `rla` has its record."""
    splice: Splice = rla.splice  # type: ignore[assignment]
    base.__class__ = cls
    base._modules[ROOT] = rla
    guard(base, splice, splice.guarded)
    splice.watch.find(base)
    return base


def undress(model: nn.Module) -> None:
    """Make a rewritten network into its base again, in place: the inverse of `dress`."""
    splice: Splice = model.rla.splice  # type: ignore[union-attr, assignment]
    model._modules.pop(ROOT)
    model.__class__ = splice.base_class
    remove_guards(model)
    put_back(model, splice.base_class)
    turn_back(model, splice.turned)
