"""The base's own methods that compute (`forward_features`, `forward_head`), run with h.

Tracing records what forward gives such a method and what it gets back. The edited graph is cut
there. What a later method lacks (h, which the base's method never had) travels as an attribute of
the tensor that the earlier one returned.
"""

from __future__ import annotations

import inspect as pyinspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from rlawrap._torch import last_node, pytree
from rlawrap.capture.trace import MethodCall, Trace
from rlawrap.design.names import is_added
from rlawrap.errors import PlanError
from rlawrap.splice.hook_points import latest

_CARRIED = "_rla_carried"


def attach(tensor: torch.Tensor, carried: tuple[Any, ...]) -> torch.Tensor:
    """Let values travel with a tensor to the method that takes it."""
    setattr(tensor, _CARRIED, carried)
    return tensor


def carried_by(tensor: Any, count: int, name: str, before: str) -> tuple[Any, ...]:
    """What travels with a tensor. Raises `PlanError` where nothing does."""
    carried = getattr(tensor, _CARRIED, None)
    if carried is None or len(carried) != count:
        raise PlanError(
            f"{name}() needs the hidden state beside the tensor, and this one carries none: give "
            f"it what {before}() of the rewritten network returned, as it is, or call the model."
        )
    return tuple(carried)


def leaf_of(tree: Any, index: int) -> Any:
    """One leaf of a tree of values, as PyTorch counts them."""
    return pytree.tree_leaves(tree)[index]


@dataclass
class _Cut:
    """One method in the making: its nodes, its boundary, and what it takes from the one before."""

    call: MethodCall
    taken: dict[str, Any]
    given: Any
    nodes: set[fx.Node]
    #: The method that returned what this one takes, and the values that travel along.
    before: str = ""
    carrier: fx.Node | None = None
    carried: list[fx.Node] = field(default_factory=list)


@dataclass(frozen=True)
class MethodGraph:
    """A method as a graph over its arguments, the network's own if the method does all.

    `refused` says why there is none.
    """

    name: str
    graph: fx.Graph | None
    #: Arguments that are constants of the graph, with the values they had.
    constants: Mapping[str, Any]
    #: Names of the other arguments, in the order of the graph's inputs.
    inputs: Sequence[str]
    refused: str = ""


def method_graphs(
    graph: fx.Graph, trace: Trace, value: Callable[[fx.Node], fx.Node], signature: type[nn.Module]
) -> dict[str, MethodGraph]:
    """A graph for each method that would run without h otherwise.

    `graph` is an edited one, `value` gives the node in it that has a traced node's value,
    `signature` is the class whose methods these are.
    """
    found: dict[str, MethodGraph] = {}
    cuts: dict[str, _Cut] = {}
    counts = [c.name for c in trace.methods]
    for call in trace.methods:
        cut = _cut(graph, call, trace, value)
        with_h = any(n.op == "call_module" and is_added(str(n.target)) for n in cut.nodes)
        why = ""
        if counts.count(call.name) > 1:
            why = "forward calls it more than once, each time with other layers of h"
        elif _takes_any(getattr(signature, call.name)):
            why = "it takes any number of arguments"
        else:
            why = _connect(cut, cuts)
        if with_h or cut.carried or why == _NEEDS_MORE:
            found[call.name] = MethodGraph(call.name, None, {}, (), why)
        if not why:
            cuts[call.name] = cut
    carriers = {c.before for c in cuts.values() if c.carried}
    for name, cut in cuts.items():
        if name in found or name in carriers:
            later = [c for c in cuts.values() if c.before == name and c.carried]
            found[name] = _build(graph, cut, later)
    return found


_NEEDS_MORE = "it computes from more than its arguments"


def _takes_any(method: Callable[..., Any]) -> bool:
    kinds = [p.kind for p in pyinspect.signature(method).parameters.values()]
    return pyinspect.Parameter.VAR_POSITIONAL in kinds or pyinspect.Parameter.VAR_KEYWORD in kinds


def _cut(
    graph: fx.Graph, call: MethodCall, trace: Trace, value: Callable[[fx.Node], fx.Node]
) -> _Cut:
    position = {node: i for i, node in enumerate(trace.graph.nodes)}
    began, ended = position.get(call.began, -1), position.get(call.ended, len(position))

    def at(tree: Any, when: int) -> Any:
        tree = latest(tree, trace, lambda w: position.get(w, when + 1) <= when)
        return pytree.tree_map_only(fx.Node, value, tree)

    taken, given = at(call.arguments, began), at(call.output, ended)
    arguments = {n for n in pytree.tree_leaves(taken) if isinstance(n, fx.Node)}
    nodes: set[fx.Node] = set()
    stack = [n for n in pytree.tree_leaves(given) if isinstance(n, fx.Node)]
    while stack:
        node = stack.pop()
        if node not in nodes and node not in arguments:
            nodes.add(node)
            stack += node.all_input_nodes
    for node in graph.nodes:  # what writes to a value and returns to nobody
        sources = set(node.all_input_nodes)
        idle = not node.users and node.op.startswith("call_")
        if idle and sources & nodes and sources <= nodes | arguments:
            nodes.add(node)
    return _Cut(call, taken, given, nodes)


def _connect(cut: _Cut, earlier: Mapping[str, _Cut]) -> str:
    """Find what a method needs beside its arguments; why it cannot have it, if so."""
    outside = [n for n in cut.nodes if n.op == "placeholder"]
    if not outside:
        return ""
    arguments = [n for n in pytree.tree_leaves(cut.taken) if isinstance(n, fx.Node)]
    for name, before in reversed(list(earlier.items())):
        given = [n for n in pytree.tree_leaves(before.given) if isinstance(n, fx.Node)]
        shared = [n for n in arguments if n in given]
        if not shared:
            continue
        own = _without(cut, before.nodes)
        carried = {n for m in own for n in m.all_input_nodes if n in before.nodes}
        if any(n.op == "placeholder" for n in own):
            continue
        cut.nodes = own
        cut.before, cut.carrier = name, shared[0]
        cut.carried = sorted(carried)
        return ""
    return _NEEDS_MORE


def _without(cut: _Cut, known: set[fx.Node]) -> set[fx.Node]:
    """The nodes of a method that its outputs need, where `known` ones are there already."""
    arguments = {n for n in pytree.tree_leaves(cut.taken) if isinstance(n, fx.Node)}
    own: set[fx.Node] = set()
    stack = [n for n in pytree.tree_leaves(cut.given) if isinstance(n, fx.Node)]
    while stack:
        node = stack.pop()
        if node not in own and node not in known and node not in arguments:
            own.add(node)
            stack += node.all_input_nodes
    return own


def _is_all(graph: fx.Graph, cut: _Cut) -> bool:
    """Whether a method takes what the network takes and does all that it does.

    torchvision's `forward` calls nothing but `_forward_impl`.
    """
    between = [n for n in graph.nodes if n.op not in ("placeholder", "output")]
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    returned = last_node(graph).args[0]
    same_ends = list(cut.taken.values()) == inputs and cut.given is returned
    return same_ends and cut.nodes.issuperset(between)


def _build(graph: fx.Graph, cut: _Cut, later: Sequence[_Cut]) -> MethodGraph:
    if not later and _is_all(graph, cut):
        return MethodGraph(cut.call.name, graph, {}, list(cut.taken))
    made = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    constants, inputs = {}, []
    for name, tree in cut.taken.items():
        leaves = pytree.tree_leaves(tree)
        if not any(isinstance(leaf, fx.Node) for leaf in leaves):
            constants[name] = tree
            continue
        inputs.append(name)
        argument = made.placeholder(name)
        for i, leaf in enumerate(leaves):
            if leaf is tree:
                copies[leaf] = argument
            elif isinstance(leaf, fx.Node):
                copies[leaf] = made.call_function(leaf_of, (argument, i))
    if cut.carried and cut.carrier is not None:
        carrier = copies[cut.carrier]
        args = (carrier, len(cut.carried), cut.call.name, cut.before)
        pack = made.call_function(carried_by, args)
        for i, node in enumerate(cut.carried):
            copies[node] = made.call_function(leaf_of, (pack, i))
    for node in graph.nodes:
        if node in cut.nodes and node not in copies:
            copies[node] = made.node_copy(node, copies.__getitem__)
    for cut_after in later:
        carrier_node = cut_after.carrier
        assert carrier_node is not None
        values = tuple(copies[n] for n in cut_after.carried)
        copies[carrier_node] = made.call_function(attach, (copies[carrier_node], values))
    made.output(pytree.tree_map_only(fx.Node, copies.__getitem__, cut.given))
    made.lint()
    return MethodGraph(cut.call.name, made, constants, inputs)
