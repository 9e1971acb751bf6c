"""Blocks of a network in which nothing joins or repeats but the layers themselves (VGG)."""

from __future__ import annotations

from torch import fx

from rlawrap.discover.owners import OwnerRules
from rlawrap.discover.regions import Found


def plain_steps(rules: OwnerRules, left_out: dict[str, str]) -> list[Found]:
    """Each convolution with its norm and activation; a depthwise one with the dense one behind it.

    Among separable convolutions a plain one before or after all others is stem or head.
    """
    steps: list[list[fx.Node]] = []
    taken: set[fx.Node] = set()
    for node in rules.flow.nodes:
        if node in taken or not _starts(rules, node):
            continue
        nodes = _step(rules, node)
        if any(rules.flow.ops.activation(n) for n in nodes):
            steps.append(nodes)
            taken.update(nodes)
    found = [_found(rules, nodes, i) for i, nodes in enumerate(steps)]
    separable = [i for i, nodes in enumerate(steps) if _separable(rules, nodes)]
    if len(separable) < 2:
        return found
    for i, step in enumerate(found):
        if not separable[0] <= i <= separable[-1]:
            left_out[step.path] = "no separable convolution, as all blocks are"
    return found[separable[0] : separable[-1] + 1]


def _starts(rules: OwnerRules, node: fx.Node) -> bool:
    """A convolution of images on the way to the output."""
    flow = rules.flow
    conv = flow.ops.conv(node) if node in flow.data else None
    if conv is None or conv.window is None or conv.transposed or not flow.is_image(node):
        return False
    return bool(flow.above[flow.main_output] >> flow.position[node] & 1)


def _step(rules: OwnerRules, conv: fx.Node) -> list[fx.Node]:
    """A convolution and what follows it alone: norm, dropout, activation."""
    flow, ops = rules.flow, rules.flow.ops
    nodes = [conv]
    joined = False
    while len(nodes[-1].users) == 1:
        user = next(iter(nodes[-1].users))
        layer = ops.norm(user) or ops.activation(user) or ops.dropout(user) or ops.identity(user)
        if not layer and not joined and _depthwise(rules, conv) and _dense(rules, user):
            joined = layer = True
        if not layer or user not in flow.data:
            break
        nodes.append(user)
    return nodes


def _depthwise(rules: OwnerRules, node: fx.Node) -> bool:
    conv = rules.flow.ops.conv(node)
    return conv is not None and conv.depthwise


def _dense(rules: OwnerRules, node: fx.Node) -> bool:
    return _starts(rules, node) and not _depthwise(rules, node)


def _separable(rules: OwnerRules, nodes: list[fx.Node]) -> bool:
    return sum(rules.flow.ops.conv(n) is not None for n in nodes) > 1


def _found(rules: OwnerRules, nodes: list[fx.Node], index: int) -> Found:
    """The step as the module whose call it is, or by its first layer."""
    flow = rules.flow
    for frame in reversed(flow.trace.stacks.get(nodes[0], ())):
        own = rules.frame_nodes[frame]
        if frame[0] and own == nodes[: len(own)] and _separable(rules, own):
            return Found(frame[0], rules.type_of(frame[0]).__name__, frame, own, own[-1])
    module = flow.trace.leaf(nodes[0])
    name = type(module).__name__ if module is not None else "convolution"
    path = str(nodes[0].target) if nodes[0].op == "call_module" else f"[{index}]"
    return Found(path, name, None, nodes, nodes[-1])
