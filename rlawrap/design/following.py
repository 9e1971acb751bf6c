"""Layers with which the hidden state follows what single nodes of the main path do to x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from rlawrap.capture.trace import name_of
from rlawrap.cells import make_norm
from rlawrap.design.layers import (
    PadBy,
    Resize,
    SliceBy,
    fresh_activation,
    named_activation,
    step_layers,
)
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.geometry import (
    Step,
    index_of,
    keeps_size,
    pad_amounts,
    pad_call,
    resize_to,
    route,
    step_fits,
    steps_of,
)
from rlawrap.flow.windows import Window

Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Reading:
    """A maker of a `Reader`, which is called with what `take` gets of a node of the main path."""

    make: Build
    node: fx.Node
    take: Callable[[fx.Node], Any]

    def __call__(self) -> nn.Module:
        return self.make()


class Follower:
    """Makes layers for a hidden state of k channels that does what x does."""

    def __init__(self, flow: Flow, k: int, norm: str) -> None:
        self.flow, self.k, self.norm_kind = flow, k, norm
        self.dims = flow.rank - 2

    def norm(self) -> tuple[str, Build]:
        """A norm of h's own."""
        return "norm", lambda: make_norm(self.norm_kind, self.k, self.dims)

    @staticmethod
    def steps(steps: list[Step]) -> list[tuple[str, Build]]:
        """Layers that change the size of h."""
        return [("pool", lambda s=step: step_layers([s])[0]) for step in steps]  # type: ignore[misc]

    def between(self, nodes: list[fx.Node]) -> list[tuple[str, Build]] | None:
        """Layers for h that do what `nodes` do to x; None if one of them cannot be followed."""
        layers: list[tuple[str, Build]] = []
        for node in nodes:
            part = self.follow(node)
            if part is None:
                return None
            layers += part
        return layers

    @staticmethod
    def _functional_activation(node: fx.Node) -> list[tuple[str, Build]] | None:
        """The activation that a function is to x, with its settings, where they are constants."""
        name, settings = name_of(node), tuple(node.args[1:])
        weighed = name == "prelu"
        given = () if weighed else (*settings, *node.kwargs.values())
        if any(isinstance(value, fx.Node) for value in given):
            return None
        kwargs = dict(node.kwargs)
        if named_activation(name, settings, kwargs) is None:
            return None
        return [("act", lambda: named_activation(name, settings, kwargs))]  # type: ignore[list-item,return-value]

    def follow(self, node: fx.Node) -> list[tuple[str, Build]] | None:
        """Layers for h that do what one node does to x; None if it cannot be followed."""
        ops = self.flow.ops
        module = self.flow.trace.leaf(node)
        if ops.norm(node):
            layers = [self.norm()]
            inner = ops.norm_activation(node)
            if inner is not None:
                layers.append(("act", lambda m=inner: fresh_activation(m)))  # type: ignore[misc]
            return layers
        if ops.activation(node):
            if module is not None:
                return [("act", lambda: fresh_activation(module))]
            return self._functional_activation(node)
        before = self.flow.sources[node][0]
        window = ops.window(node)
        if window is not None and self.flow.same_size(node, before):
            return [("pool", lambda: max_pool_layer(window))] if ops.max_pool(node) else []
        steps = steps_of(self.flow, node)
        if steps is not None and step_fits(self.flow, steps, before, node):
            return self.steps(steps)
        if keeps_size(self.flow, node, before):
            return []  # dropout, scaling, a change of layout: nothing that h needs
        return self._same_call(node) or self.bring(before, node)

    def _same_call(self, node: fx.Node) -> list[tuple[str, Build]] | None:
        """Padding or a slice whose amounts follow from sizes: h gets the amounts that x gets."""
        rank = self.flow.rank
        if self.flow.channel_axis(node) != 1:
            return None
        call = pad_call(self.flow, node)
        if call is not None and len(call[0]) <= 2 * self.dims:
            return [("pad", Reading(lambda: PadBy(call[1]), node, pad_amounts))]
        index = index_of(node, rank)
        if index is not None and len(index) == rank and index[0] == slice(None):
            return [("slice", Reading(SliceBy, node, lambda n: (index_of(n, rank) or [])[2:]))]
        return None

    def bring(self, source: fx.Node, goal: fx.Node) -> list[tuple[str, Build]] | None:
        """Layers from the size of one node to another's: by steps, else resized to it."""
        steps = route(self.flow, source, goal)
        if steps is not None:
            return self.steps(steps)
        resize = resize_to(self.flow, goal)
        if resize is None:
            return None
        return [("resize", Reading(lambda: Resize(resize.axes), goal, lambda n: n))]


def max_pool_layer(window: Window) -> nn.Module:
    """A maximum pool that keeps the size, as in an Inception branch."""
    cls = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[len(window.kernel) - 1]
    return cls(
        window.kernel,  # type: ignore[arg-type]
        window.stride,  # type: ignore[arg-type]
        window.padding,  # type: ignore[arg-type]
        window.dilation,  # type: ignore[arg-type]
        ceil_mode=window.ceil_mode,
    )
