"""Blocks of a network in which nothing joins or repeats but the layers themselves (VGG)."""

from __future__ import annotations

from rlawrap.discover.owners import OwnerRules
from rlawrap.discover.regions import Found


def plain_steps(rules: OwnerRules) -> list[Found]:
    """Each convolution with its norm and activation."""
    flow, ops = rules.flow, rules.flow.ops
    alive = flow.above[flow.main_output]
    found: list[Found] = []
    for node in flow.nodes:
        conv = ops.conv(node) if node in flow.data else None
        if conv is None or conv.window is None or not alive >> flow.position[node] & 1:
            continue
        if not flow.is_image(node) or conv.transposed:
            continue
        nodes = [node]
        while len(nodes[-1].users) == 1:
            user = next(iter(nodes[-1].users))
            layer = ops.norm(user) or ops.activation(user)
            if not (layer or ops.dropout(user) or ops.identity(user)):
                break
            nodes.append(user)
        if not any(ops.activation(n) for n in nodes):
            continue
        path = str(node.target) if node.op == "call_module" else f"[{len(found)}]"
        module = flow.trace.leaf(node)
        name = type(module).__name__ if module is not None else "convolution"
        found.append(Found(path, name, None, nodes, nodes[-1]))
    return found
