"""Blocks without a module of their own: steps written in a network's or stage's forward."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from torch import fx

from rlawrap.capture.trace import Frame
from rlawrap.discover.owners import OwnerRules
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import tensors_of


@dataclass
class Found:
    """A block as a set of nodes: `joins` are its own adds and concatenations, in order."""

    path: str
    class_name: str
    frame: Frame | None
    nodes: list[fx.Node]
    output: fx.Node
    joins: list[fx.Node] = field(default_factory=list)


def extend_output(flow: Flow, join: fx.Node) -> fx.Node:
    """`x = relu(x + y)`: the block ends behind the activation that alone reads the join."""
    node = join
    while len(node.users) == 1:
        user = next(iter(node.users))
        elementwise = flow.ops.activation(user) or flow.ops.dropout(user) or flow.ops.identity(user)
        if user not in flow.data or not elementwise or flow.ops.norm(user):
            break
        node = user
    return node


def step_regions(rules: OwnerRules, frame: Frame | None) -> list[Found]:
    """Disjoint residual or dense steps that one forward makes one after the other.

    A step ends at a join that every path to the frame's result passes, and starts at the last
    such point that both its operands come from.
    """
    flow = rules.flow
    trace = flow.trace
    owner = frame or ("", 0)
    joins = [
        n
        for n in _passed(rules, frame)
        if trace.owner(n) == owner and rules.join_operands(n) is not None
    ]
    found: list[Found] = []
    last_end = -1
    for join in joins:
        start = flow.idom[join]
        if start is None or flow.position[start] < last_end:
            continue
        bits = flow.above[join] & ~flow.above[start]
        nodes = flow.members(bits)
        if not any(flow.ops.conv(n) for n in nodes):
            continue
        output = extend_output(flow, join)
        extra = flow.members(flow.above[output] & ~flow.above[join])
        path = f"{owner[0]}[{len(found)}]"
        found.append(Found(path, _class_name(rules, owner), None, [*nodes, *extra], output, [join]))
        last_end = flow.position[output]
    return found


def _passed(rules: OwnerRules, frame: Frame | None) -> list[fx.Node]:
    """Nodes that every path to the result of a frame (of the network: its output) passes."""
    flow = rules.flow
    if frame is None:
        return flow.trunk
    results = [n for n in tensors_of(flow.trace.calls[frame].output) if n in flow.idom]
    if not results:
        return []
    chain: list[fx.Node] = []
    node: fx.Node | None = max(results, key=flow.position.__getitem__)
    while node is not None and frame in flow.trace.stacks.get(node, ()):
        chain.append(node)
        node = flow.idom[node]
    return chain[::-1]


def _class_name(rules: OwnerRules, owner: Frame) -> str:
    return f"step of {rules.type_of(owner[0]).__name__}"


def looping_steps(rules: OwnerRules, path: str) -> list[Found]:
    """The steps of a stage whose forward loops over its layers; empty if it is no such stage.

    Steps of one loop call layers whose paths agree once whole numbers (`convs.3`, not `conv3`) are
    blanked; the two halves of a MetaFormer block do not.
    """
    steps = step_regions(rules, (path, 0))
    if len(steps) < 2:
        return []
    signatures = [_signature(rules, step) for step in steps]
    repeated = max(signatures.count(s) for s in signatures)
    if repeated < 2 or repeated * 2 < len(steps):
        return []
    return steps if all(signatures) else []


def _signature(rules: OwnerRules, step: Found) -> frozenset[str]:
    convs = [n for n in step.nodes if rules.flow.ops.conv(n) is not None]
    paths = [str(n.target) for n in convs if n.op == "call_module"]
    return frozenset(re.sub(r"\b\d+\b", "*", p) for p in paths)
