"""Measurements of single modules, of which the evidence consists."""

from __future__ import annotations

from collections.abc import Hashable

from torch import fx, nn

from rlawrap._torch import ConvNd
from rlawrap.discover.places import CONTAINERS, class_of
from rlawrap.flow.dataflow import Flow


def wrapped(module: nn.Module) -> Hashable:
    """The kind of the one child with parameters of a generic wrapper, or None.

    A scale of the wrapper's own may be beside it.
    """
    if any(p.numel() != max(p.shape, default=1) for p in module.parameters(recurse=False)):
        return None
    children = [c for c in module.children() if any(True for _ in c.parameters())]
    return kind_of(children[0]) if len(children) == 1 else None


def kind_of(module: nn.Module) -> tuple[Hashable, ...]:
    """A module's class, and of a container the kinds that it holds."""
    inner = module.children() if isinstance(module, CONTAINERS) else ()
    return (class_of(module), *map(kind_of, inner))


def learned_layers(module: nn.Module) -> tuple[Hashable, ...]:
    """The classes of the layers that learn, in their order: a module's structure."""
    return tuple(
        class_of(m) for m in module.modules() if any(True for _ in m.parameters(recurse=False))
    )


def depth(flow: Flow, nodes: list[fx.Node]) -> int:
    """The most of `nodes`, given in order, of which each derives from the one before."""
    deep: dict[fx.Node, int] = {}
    for node in nodes:
        deep[node] = 1 + max((deep[n] for n in deep if flow.derives(node, n)), default=0)
    return max(deep.values(), default=0)


def gathers(flow: Flow, nodes: list[fx.Node]) -> bool:
    """Whether the first of a module's nodes concatenates only what comes from outside."""
    first = next((n for n in nodes if flow.sources[n]), None)
    items = flow.ops.cat_operands(first) if first is not None else None
    return items is not None and not set(items) & set(nodes)


def kernel_inside(module: nn.Module) -> bool:
    """Whether a module that is kept whole holds a convolution of more than one pixel."""
    return any(isinstance(m, ConvNd) and max(m.kernel_size) > 1 for m in module.modules())


def token_owners(flow: Flow, conv_paths: set[str]) -> set[str]:
    """Modules with a residual add of sequences: images whose pixels were made one axis.

    What is convolved with as few axes is no sequence of tokens, but a signal or an image itself.
    """
    paths: set[str] = set()
    convs = [flow.ops.conv(n) for n in flow.nodes if n in flow.data]
    fewer = any(c and c.window and len(c.window.kernel) == flow.rank - 3 for c in convs)
    if fewer and len(flow.shapes.inputs[0]) < flow.rank:
        return paths
    for node in flow.nodes:
        pair = flow.ops.add_operands(node) if node in flow.data else None
        if pair is None or not all(n in flow.data for n in pair) or not flow.alive(node):
            continue
        if not flow.derives(*pair) and not flow.derives(*pair[::-1]):
            continue  # a sum of two results, such as a corner of a box, is no residual
        a, b = (flow.shapes.of(n) for n in pair)
        if a is not None and a == b and len(a) == flow.rank - 1 >= 3:
            paths.add(flow.trace.owner(node)[0])
    return paths & conv_paths
