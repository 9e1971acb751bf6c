"""References: stable names for the values of a traced network (their form is in `rlawrap.plan`)."""

from __future__ import annotations

import difflib
from collections import defaultdict
from typing import Any

from torch import fx

from rlawrap.capture.trace import Frame, Trace, name_of
from rlawrap.errors import PlanError


def frame_text(frame: Frame) -> str:
    return frame[0] if frame[1] == 0 else f"{frame[0]}#{frame[1]}"


def tensors_of(value: Any) -> list[fx.Node]:
    """The nodes in a module's return value."""
    if isinstance(value, fx.Node):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [node for item in value for node in tensors_of(item)]
    return []


def names_of(trace: Trace) -> dict[fx.Node, str]:
    """The reference of every value of a graph."""
    names: dict[fx.Node, str] = {}
    counts: dict[tuple[Frame, str], int] = defaultdict(int)
    inputs = 0
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            names[node] = ":input" if inputs == 0 else f":input#{inputs}"
            inputs += 1
        elif node.op == "call_module":
            names[node] = frame_text(trace.leaf_frames[node])
        elif node.op in ("call_function", "call_method"):
            owner, name = trace.owner(node), name_of(node).strip("_")
            ordinal = counts[owner, name]
            counts[owner, name] += 1
            suffix = f"#{ordinal}" if ordinal else ""
            names[node] = f"{frame_text(owner)}:{name}{suffix}"
    return names


class References:
    """Both directions: the reference of a node, and the node of a reference."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._names = names_of(trace) if trace.names is None else trace.names
        self._nodes = {name: node for node, name in self._names.items()}
        for frame, call in trace.calls.items():
            nodes = tensors_of(call.output)
            if len(nodes) == 1:
                self._nodes.setdefault(frame_text(frame), nodes[0])
            else:
                for i, node in enumerate(nodes):
                    self._nodes.setdefault(f"{frame_text(frame)}:out#{i}", node)

    def name(self, node: fx.Node) -> str:
        """The reference of a node."""
        return self._names[node]

    def find_name(self, node: fx.Node) -> str | None:
        """The reference of a node, if it has one: what train mode alone computes has none."""
        return self._names.get(node)

    def call(self, frame: Frame) -> str:
        """The reference of what a module call returns."""
        return frame_text(frame)

    def node(self, reference: str) -> fx.Node:
        """The node of a reference. Raises `PlanError` with the nearest ones that exist."""
        try:
            return self._nodes[reference]
        except KeyError:
            near = difflib.get_close_matches(reference, self._nodes, n=4)
            hint = f" Near it: {', '.join(near)}." if near else ""
            when = "" if self.trace.names is None else " in training mode"
            if reference in self.trace.elsewhere:
                when = " on images of this size in training mode"
            raise PlanError(
                f"the plan names {reference!r}, which {type(self.trace.root).__name__} does not "
                f"compute{when}.{hint} `print(rlawrap.inspect(model))` shows the references of a "
                "network."
            ) from None

    def find(self, reference: str) -> fx.Node | None:
        return self._nodes.get(reference)
