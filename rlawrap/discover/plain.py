"""Layers as blocks, for a network in which nothing joins or repeats but they themselves (VGG)."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from torch import fx, nn

from rlawrap.capture.trace import Frame
from rlawrap.discover.candidates import Candidate, Evidence, Kind, Region
from rlawrap.discover.places import class_of
from rlawrap.flow.dataflow import Flow
from rlawrap.walks import chain, only

#: So many convolutions in a row are layers, though nothing that is known as an activation follows.
FEW = 3


def layer_candidates(
    flow: Flow, ran: Mapping[Frame, list[fx.Node]], modules: Mapping[str, nn.Module]
) -> Iterator[Candidate]:
    """Each convolution with its norm and activation; a depthwise one with the dense one behind it.

    conv ─ norm ─ relu ─    depthwise ─ norm ─ relu ─ dense ─ norm ─ relu ─    conv ─ pool ─ relu ─
    └────────────────┘      └───────────────────────────────────────────┘      └──┘
    """
    layers = list(_layers(flow))
    acting = [layer for layer in layers if _acts(flow, layer)]
    if not acting and len(layers) >= FEW:  # its norms and activations are its own
        acting = layers
    for count, nodes in enumerate(acting):
        yield _candidate(flow, ran, modules, nodes, count)


def _acts(flow: Flow, layer: list[fx.Node]) -> bool:
    """Whether an activation is part of a layer, or follows it behind a pool."""

    def pooled(node: fx.Node) -> fx.Node | None:
        user = only(node.users)
        pools = user in flow.data and flow.ops.conv(user) is None and flow.ops.window(user)
        return user if pools else None

    last = only(chain(layer[-1], pooled)[-1].users)
    return any(flow.ops.activation(n) for n in (*layer, *([last] if last in flow.data else [])))


def _layers(flow: Flow) -> Iterator[list[fx.Node]]:
    taken: set[fx.Node] = set()
    for node in flow.nodes:
        if node not in taken and flow.image_conv(node):
            nodes = layer_nodes(flow, node)
            if any(flow.ops.activation(n) for n in nodes):
                taken.update(nodes)
            yield nodes


def layer_nodes(flow: Flow, start: fx.Node, apart: Container[fx.Node] = ()) -> list[fx.Node]:
    """A convolution and what follows it alone: norm, dropout, activation.

    A depthwise one has the dense one behind it, too. Nodes that are to stand `apart` end it.
    """
    joined = not _depthwise(flow, start)

    def next_one(node: fx.Node) -> fx.Node | None:
        nonlocal joined
        user = only(node.users)
        if user is None or user not in flow.data or user in apart:
            return None
        if flow.ops.norm(user) or flow.ops.elementwise(user):
            return user
        if joined or not flow.image_conv(user) or _depthwise(flow, user):
            return None
        joined = True
        return user

    return chain(start, next_one)


def _depthwise(flow: Flow, node: fx.Node) -> bool:
    conv = flow.ops.conv(node)
    return conv is not None and conv.depthwise


def _candidate(
    flow: Flow,
    ran: Mapping[Frame, list[fx.Node]],
    modules: Mapping[str, nn.Module],
    nodes: list[fx.Node],
    index: int,
) -> Candidate:
    """The layer as the module whose call it is, or by its first layer."""
    convs = sum(flow.ops.conv(n) is not None for n in nodes)
    first = nodes[0]
    path, times = flow.trace.leaf_frames.get(first, ("", 0))
    name = f"{path}#{times}" if times else path or f"[{index}]"
    cls = class_of(modules[path])
    label = cls.__name__ if path else "convolution"
    called: Frame | None = None
    for frame in reversed(flow.trace.stacks.get(first, ())):
        own = ran[frame]
        separable = sum(flow.ops.conv(n) is not None for n in own) > 1
        if frame[0] and own == nodes[: len(own)] and separable:
            nodes, called, name = own, frame, frame[0]
            cls = class_of(modules[name])
            label = cls.__name__
            break
    return Candidate(
        name=name,
        kind=Kind.LAYER,
        path=name if called or path else "",
        cls=cls,
        label=label,
        evidence=Evidence(convolutions=convs),
        region=Region(nodes=tuple(nodes), output=nodes[-1], frame=called),
    )
