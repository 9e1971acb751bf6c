"""Counting a network whose blocks are no modules: node by node of its graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import fx

from rlawrap.capture.arguments import placeholder_values
from rlawrap.capture.fake_runs import run_node
from rlawrap.capture.results import Results
from rlawrap.capture.trace import Trace
from rlawrap.cost.count import Call, Recorder
from rlawrap.cost.inputs import Example
from rlawrap.cost.parts import HEAD, STEM, stage_name
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References
from rlawrap.plan import Block, Plan


class _Anew(Results):
    """Runs every call: one that is looked up is not counted."""

    def call_module(self, module: Any, run: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        return run()


def count_nodes(flow: Flow, plan: Plan, example: Example) -> tuple[list[Call], list[str]]:
    """What a graph does in eval mode, in order, and the part of each.

    Raises `PlanError` where the plan names what the network does not compute, and the network's
    own error where it does not take the input.
    """
    trace = flow.trace
    own = replace(trace, shadow=replace(trace.shadow, results=_Anew()))
    values = placeholder_values(example.bound(trace.shadow))
    modules = trace.shadow.modules
    part_of = node_parts(flow, plan)
    recorder = Recorder(trace.root.eval())
    parts: list[str] = []
    env: dict[fx.Node, Any] = {}
    with trace.on_meta(), recorder.counting():
        for node in trace.graph.nodes:
            env[node] = run_node(own, node, modules, env, values, None)
            recorder.flush()
            parts += [part_of[node]] * (len(recorder.calls) - len(parts))
    return recorder.calls, parts


def node_parts(flow: Flow, plan: Plan) -> dict[fx.Node, str]:
    """The part of every node: that of its block, and of others by the rule of `assign_calls`.

    What is computed of parameters alone, such as a kernel, belongs to what reads it first.
    """
    refs = References(flow.trace)
    called = _calls(flow.trace, refs)
    parts: dict[fx.Node, str] = {}
    for stage in plan.stages:
        for block in stage.blocks:
            for node in called.get(block.path) or _region(flow, refs, block):
                parts.setdefault(node, stage_name(stage.index))
    data = [n for n in flow.nodes if n in flow.data]
    last = max((i for i, n in enumerate(data) if n in parts), default=-1)
    current = STEM
    for i, node in enumerate(data):
        current = parts.setdefault(node, HEAD if i > last else current)
    for node in reversed(flow.nodes):
        if node not in flow.data:
            read = min(node.users, key=flow.position.__getitem__, default=None)
            parts[node] = HEAD if read is None else parts[read]
    return parts


def _calls(trace: Trace, refs: References) -> dict[str, list[fx.Node]]:
    """The nodes of each module call, by its reference."""
    found: dict[str, list[fx.Node]] = defaultdict(list)
    for node in trace.graph.nodes:
        leaf = trace.leaf_frames.get(node)
        for frame in (*trace.stacks.get(node, ()), *([leaf] if leaf else ())):
            found[refs.call(frame)].append(node)
    return found


def _region(flow: Flow, refs: References, block: Block) -> Iterator[fx.Node]:
    """The nodes between a block's input and its output."""
    output = refs.node(block.output)
    if block.input is not None:
        start = refs.node(block.input)
    else:
        start = flow.sources[refs.node(block.entries[0])][0] if block.entries else output
    for node in flow.members(flow.above[output] & ~flow.above[start]):
        if flow.position[node] > flow.position[start]:
            yield node
