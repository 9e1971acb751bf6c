"""The arguments of a recorded call: from the user's example, or one image."""

from __future__ import annotations

import inspect as pyinspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlawrap._torch import ASSERT, pytree
from rlawrap.capture.shadow import Shadow
from rlawrap.errors import PlanError, few, for_whole

Shape = tuple[int, ...]
_KINDS = pyinspect.Parameter


def _star(parameter: pyinspect.Parameter) -> str:
    """What stands before a parameter's name in a `def`."""
    if parameter.kind is _KINDS.VAR_POSITIONAL:
        return "*"
    return "**" if parameter.kind is _KINDS.VAR_KEYWORD else ""


@dataclass(frozen=True)
class Arguments:
    """One call: how it is made, and what each parameter of forward gets that was given one."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    given: Mapping[str, Any]
    parameters: tuple[pyinspect.Parameter, ...]


def parameters_of(network: nn.Module) -> tuple[pyinspect.Parameter, ...]:
    """The parameters of a network's forward, seen through decorators that pass them on.

    A decorator that takes options of its own out of `**kwargs` leaves those in the signature.
    """
    forward = type(network).forward
    inner = list(pyinspect.signature(forward).parameters.values())[1:]
    outer = list(pyinspect.signature(forward, follow_wrapped=False).parameters.values())[1:]
    options = [p for p in outer if p.kind is _KINDS.VAR_KEYWORD]
    if options and not any(p.kind is _KINDS.VAR_KEYWORD for p in inner):
        inner.append(options[0])
    return tuple(inner)


def make_arguments(
    shadow: Shadow, example: Any, shape: Shape | None, *, images_alone: bool = False
) -> Arguments:
    """The arguments for images of a shape, as meta tensors.

    Without `example` the first parameter gets the image. Of an example, tensors as large as its
    image follow the image's size, and those with as many rows its batch; with `images_alone` only
    those of three axes and more.
    Raises `PlanError` for an example that forward does not take.
    """
    parameters = parameters_of(shadow.root)
    names = [p.name for p in parameters]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}
    if example is None:
        if not parameters or shape is None:
            raise for_whole(
                PlanError,
                f"the forward of {type(shadow.root).__name__} takes no input, so that no image "
                "goes through the network.",
            )
        args = (torch.empty(shape, device="meta", dtype=shadow.dtype),)
    else:
        resized = _Resizing(image_of(example), shape, images_alone)
        moved = pytree.tree_map_only(Tensor, resized, example)
        if isinstance(example, Mapping):
            args, kwargs = (), dict(moved)
        else:
            args = tuple(moved) if isinstance(moved, (tuple, list)) else (moved,)
    if args and parameters and parameters[0].kind is _KINDS.KEYWORD_ONLY:
        args, kwargs = (), dict(zip(names, args, strict=False))
    given = _bound(parameters, args, kwargs, example)
    return Arguments(args, kwargs, given, parameters)


def _bound(
    parameters: tuple[pyinspect.Parameter, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    example: Any,
) -> dict[str, Any]:
    names = [p.name for p in parameters]
    ordered = (_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD)
    positional = [p for p in parameters if p.kind in ordered]
    starred = any(p.kind is _KINDS.VAR_POSITIONAL for p in parameters)
    if len(args) > len(positional) and not starred:
        raise PlanError(
            f"example_input= has {len(args)} values, the network takes {names}."
            f"{_as_one(parameters, example)}"
        )
    unknown = sorted(set(kwargs) - set(names))
    if unknown and not any(p.kind is _KINDS.VAR_KEYWORD for p in parameters):
        raise PlanError(
            f"example_input= has no place for {unknown}; the network takes {names}."
            f"{_as_one(parameters, example)}"
        )
    try:
        bound = pyinspect.Signature(list(parameters)).bind_partial(*args, **kwargs)
    except TypeError as error:
        raise PlanError(f"example_input= does not fit the network's forward: {error}.") from None
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty
        and p.kind not in (_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD)
        and p.name not in bound.arguments
    ]
    if missing:
        if example is not None:
            raise PlanError(
                f"example_input= has no value for the input {missing[0]!r}; the network takes "
                f"{names}."
            )
        raise for_whole(
            PlanError,
            f"the input {missing[0]!r} has no value; pass `example_input=x`, where x is a tuple, "
            f"or a dict by name, of {few(missing if len(missing) > 1 else names)}.",
        )
    return dict(bound.arguments)


def _as_one(parameters: tuple[pyinspect.Parameter, ...], example: Any) -> str:
    """How several values are given as the one input that a network needs."""
    needed = [p.name for p in parameters if p.default is p.empty and not _star(p)]
    if len(needed) != 1:
        return ""
    kind = type(example).__name__
    return f" If {needed[0]!r} is this {kind} as a whole, pass `example_input=(x,)`, x being it."


class _Resizing:
    """Makes a tensor of an example into a meta tensor for images of another shape."""

    def __init__(self, image: Tensor, shape: Shape | None, images_alone: bool) -> None:
        self.image, self.shape = tuple(image.shape), shape
        self.fewest = 3 if images_alone else 1

    def __call__(self, tensor: Tensor) -> Tensor:
        size = list(tensor.shape)
        shape = self.shape
        if shape is not None and len(size) >= self.fewest and size[0] == self.image[0]:
            size[0] = shape[0]
        if shape is not None and len(size) == len(self.image):
            for i in range(1, len(size)):
                scaled = size[i] * shape[i]
                if scaled % self.image[i] == 0:
                    size[i] = scaled // self.image[i]
        return torch.empty(size, dtype=tensor.dtype, device="meta")


def image_of(example: Any) -> Tensor:
    """The tensor of an example input that is taken for the image. Raises `PlanError` if none is."""
    leaves = pytree.tree_leaves(example)
    tensors = [t for t in leaves if isinstance(t, Tensor) and t.dim() >= 3]
    if not tensors:
        raise for_whole(
            PlanError,
            "example_input= holds no tensor of (batch, channels, length) or more dimensions, which "
            "could be an image.",
            "Where forward makes an image of what it gets, put the layers behind that into a "
            "module of their own, and rewrite this one with at=.",
        )
    return tensors[0]


def placeholder_values(arguments: Arguments) -> dict[str, Any]:
    """By the target of a placeholder, what this call gives it."""
    return {
        _star(p) + p.name: arguments.given[p.name]
        for p in arguments.parameters
        if p.name in arguments.given
    }


def same_keys(keywords: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    """Whether keyword arguments have these names and no others."""
    return set(keywords) == set(keys)


def equal(value: Any, other: Any) -> bool:
    """Whether an argument is a plain value; a tensor is none."""
    return value is other or (not isinstance(value, Tensor) and bool(value == other))


class Inputs:
    """Writes the inputs of a graph: its placeholders, what is taken out of them, and checks.

    `know` is told which node each tensor of the call comes from. A value that is no tensor is the
    one of this call, and the graph checks that it is.
    """

    def __init__(
        self,
        graph: fx.Graph,
        made: Callable[[fx.Node], fx.Node],
        know: Callable[[Tensor, fx.Node], None],
    ) -> None:
        self.graph, self.made, self.know = graph, made, know
        #: The nodes of the tensors among the inputs, with what a person calls them.
        self.images: dict[fx.Node, str] = {}

    def write(self, arguments: Arguments) -> list[fx.Node]:
        """The nodes made, in order: the first of the graph."""
        holders: list[tuple[pyinspect.Parameter, fx.Node]] = []
        for p in arguments.parameters:
            default = _KINDS.empty if _star(p) else p.default
            node = self.graph.placeholder(_star(p) + p.name, default_value=default)
            holders.append((p, self.made(node)))
        for p, node in holders:
            if p.kind is _KINDS.VAR_POSITIONAL:
                self._unpack(p.name, node, arguments.given.get(p.name, ()))
            elif p.kind is _KINDS.VAR_KEYWORD:
                self._unpack(p.name, node, arguments.given.get(p.name, {}))
            else:
                self._unpack(p.name, node, arguments.given.get(p.name, p.default))
        return list(self.graph.nodes)

    def _unpack(self, name: str, node: fx.Node, value: Any) -> None:
        if isinstance(value, Tensor):
            self.know(value, node)
            self.images[node] = name
        elif isinstance(value, Mapping):
            keys = tuple(value)
            self._check(same_keys, (node, keys), f"with {name} of the keys {list(keys)}")
            for key, item in value.items():
                self._unpack(f"{name}[{key!r}]", self._item(node, key, item), item)
        elif isinstance(value, (tuple, list)):
            count = self.made(self.graph.call_function(len, (node,)))
            self._check(equal, (count, len(value)), f"with {len(value)} values in {name}")
            for i, item in enumerate(value):
                self._unpack(f"{name}[{i}]", self._item(node, i, item), item)
        else:
            self._check(equal, (node, value), f"with {name}={value!r}")

    def _item(self, node: fx.Node, key: Any, item: Any) -> fx.Node:
        return self.made(self.graph.call_function(operator.getitem, (node, key)))

    def _check(self, function: Callable[..., bool], args: tuple[Any, ...], what: str) -> None:
        message = (
            f"this network was traced {what} and takes no other value; give apply an input like "
            "this one as example_input="
        )
        condition = self.made(self.graph.call_function(function, args))
        self.made(self.graph.call_function(ASSERT, (condition, message)))
