"""References: stable names for the values of a traced network (their form is in `rlawrap.plan`)."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from torch import fx

from rlawrap.capture.trace import Frame, Trace, name_of
from rlawrap.errors import PlanError


def _frame_text(frame: Frame) -> str:
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


def _names_of(trace: Trace) -> dict[fx.Node, str]:
    """The reference of every value of a graph."""
    names: dict[fx.Node, str] = {}
    counts: dict[tuple[Frame, str], int] = defaultdict(int)
    inputs = 0
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            names[node] = ":input" if inputs == 0 else f":input#{inputs}"
            inputs += 1
        elif node.op == "call_module":
            names[node] = _frame_text(trace.leaf_frames[node])
        elif node.op in ("call_function", "call_method"):
            owner, name = trace.owner(node), name_of(node).strip("_")
            ordinal = counts[owner, name]
            counts[owner, name] += 1
            suffix = f"#{ordinal}" if ordinal else ""
            names[node] = f"{_frame_text(owner)}:{name}{suffix}"
    return names


def _by_place(trace: Trace) -> dict[tuple[Any, ...], fx.Node]:
    """The values of a graph by the call, the line of code and the operation that made them."""
    found: dict[tuple[Any, ...], fx.Node] = {}
    counts: dict[tuple[Any, ...], int] = defaultdict(int)
    for i, node in enumerate(trace.graph.nodes):
        if node.op == "placeholder":
            found["placeholder", i] = node
        elif node.op in ("call_module", "call_function", "call_method"):
            what = str(node.target) if node.op == "call_module" else name_of(node)
            key = (trace.owner(node), trace.places.get(node), node.op, what)
            found[(*key, counts[key])] = node
            counts[key] += 1
    return found


def name_alike(
    evaluated: Trace, trained: Trace, same: Callable[[fx.Node, fx.Node], bool] = lambda a, b: True
) -> None:
    """Give the values of the train graph the references that they have in eval mode.

    `same` says whether two values may be one: those of unlike shapes are not.

    By their number they could not be told: a drop of branches, say, adds a product to the forward,
    and every later product would have another name. What only train mode computes has none. A layer
    that both modes call as often has its path for a name, whatever the line that calls it.
    """
    names = _names_of(evaluated)
    twins = _by_place(trained)
    pairs = ((node, twins.get(key)) for key, node in _by_place(evaluated).items())
    trained.names = {t: names[n] for n, t in pairs if t is not None and same(n, t)}
    _name_layers(evaluated, trained, trained.names, same)


def _name_layers(
    evaluated: Trace,
    trained: Trace,
    names: dict[fx.Node, str],
    same: Callable[[fx.Node, fx.Node], bool],
) -> None:
    """The layers that are called from other lines in train mode: on alike values, or elsewhere."""
    there = {frame: node for node, frame in evaluated.leaf_frames.items()}
    calls, trained_calls = (
        Counter(path for path, _ in trace.leaf_frames.values()) for trace in (evaluated, trained)
    )
    taken = set(names.values())
    for node, frame in trained.leaf_frames.items():
        text = _frame_text(frame)
        if node in names or text in taken or calls[frame[0]] != trained_calls[frame[0]]:
            continue
        if same(there[frame], node):
            names[node] = text
        else:
            trained.elsewhere[text] = node


class References:
    """Both directions: the reference of a node, and the node of a reference."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._names = _names_of(trace) if trace.names is None else trace.names
        self._nodes = {name: node for node, name in self._names.items()}
        for frame, call in trace.calls.items():
            nodes = tensors_of(call.output)
            if len(nodes) == 1:
                self._nodes.setdefault(_frame_text(frame), nodes[0])
            else:
                for i, node in enumerate(nodes):
                    self._nodes.setdefault(f"{_frame_text(frame)}:out#{i}", node)

    def name(self, node: fx.Node) -> str:
        """The reference of a node."""
        return self._names[node]

    def call(self, frame: Frame) -> str:
        """The reference of what a module call returns."""
        return _frame_text(frame)

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
