"""Activation checkpointing of the rewritten graph, block by block.

Wrapping block modules, as PyTorch's utilities do, changes nothing here: the graph calls their
layers, never the blocks. So the graph's nodes are cut into segments that end at the blocks'
outputs, and each segment is a function that `torch.utils.checkpoint` can run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import fx, nn
from torch.utils.checkpoint import checkpoint

from rlawrap.capture.generate import compile_graph
from rlawrap.capture.overwrites import writes_in_place
from rlawrap.design.names import is_output
from rlawrap.splice.inplace import aliases


def segments(graph: fx.Graph, modules: dict[str, nn.Module]) -> list[list[fx.Node]]:
    """Runs of nodes that end at a block's output and overwrite nothing an earlier run made."""
    nodes = [n for n in graph.nodes if n.op not in ("placeholder", "output")]
    position = {node: i for i, node in enumerate(nodes)}
    writes = []
    for node in nodes:
        target = writes_in_place(modules.get(str(node.target)), node)
        if target is not None:
            # The input of the network counts as made before everything.
            first = min(position.get(n, -1) for n in _same_storage(target, modules))
            writes.append((first, position[node]))
    runs: list[list[fx.Node]] = []
    start = 0
    for node in nodes:
        end = position[node]
        if end < start or node.op != "call_module" or not is_output(str(node.target)):
            continue
        # Run again, an overwritten input would be overwritten twice: a run ends behind whatever
        # overwrites what it made.
        while (behind := max((w for made, w in writes if made <= end < w), default=end)) > end:
            end = behind
        runs.append(nodes[start : end + 1])
        start = end + 1
    return [run for run in (*runs, nodes[start:]) if run]


def _same_storage(node: fx.Node, modules: dict[str, nn.Module]) -> list[fx.Node]:
    """A node and those before it whose tensor it may be a view of, or the very same."""
    chain = [node]
    while True:
        module = modules.get(str(chain[-1].target))
        written = writes_in_place(module, chain[-1])
        before = chain[-1].all_input_nodes[:1] if aliases(module, chain[-1]) else []
        if written is None and not before:
            return chain
        chain.append(before[0] if written is None else written)


def _function(run: list[fx.Node]) -> tuple[Callable[..., Any], list[fx.Node], list[fx.Node]]:
    """A segment as a function of the model and its inputs, with its input and output nodes."""
    own = set(run)
    inputs = list(dict.fromkeys(a for n in run for a in n.all_input_nodes if a not in own))
    outputs = [n for n in run if any(user not in own for user in n.users)]
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in run:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[n] for n in outputs))
    return compile_graph(graph, "checkpointed"), inputs, outputs


_Context = AbstractContextManager[None]


def _norms(model: nn.Module, paths: list[str]) -> list[nn.Module]:
    """The norms with running statistics that the modules of these paths hold."""
    inner = dict.fromkeys(m for path in paths for m in model.get_submodule(path).modules())
    return [m for m in inner if isinstance(getattr(m, "running_mean", None), torch.Tensor)]


@contextmanager
def _statistics_kept(norms: list[nn.Module]) -> Iterator[None]:
    """Let norms update copies of their statistics: the second run must not count twice."""
    before = [dict(m._buffers) for m in norms]
    for module in norms:
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = value.clone()
    try:
        yield
    finally:
        for module, buffers in zip(norms, before, strict=True):
            module._buffers.update(buffers)


def checkpointed(graph: fx.Graph, root: nn.Module) -> Callable[..., Any]:
    """A forward that computes what `graph` does and keeps the segments' inputs alone."""
    modules = dict(root.named_modules(remove_duplicate=False))
    plan = []
    for run in segments(graph, modules):
        function, inputs, outputs = _function(run)
        paths = dict.fromkeys(str(n.target) for n in run if n.op == "call_module")
        plan.append((function, inputs, outputs, list(paths)))
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    result = next(n for n in graph.nodes if n.op == "output").args[0]

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        env: dict[fx.Node, Any] = {}
        for i, node in enumerate(placeholders):
            if i < len(args):
                env[node] = args[i]
            elif str(node.target) in kwargs:
                env[node] = kwargs[str(node.target)]
            else:
                env[node] = node.args[0]
        again = self.training and torch.is_grad_enabled()
        for function, inputs, outputs, paths in plan:
            values = [env[n] for n in inputs]
            if not again:
                made = function(self, *values)
            elif torch.compiler.is_compiling():
                made = checkpoint(function, self, *values, use_reentrant=False)
            else:

                def contexts(paths: list[str] = paths) -> tuple[_Context, _Context]:
                    return nullcontext(), _statistics_kept(_norms(self, paths))

                made = checkpoint(function, self, *values, use_reentrant=False, context_fn=contexts)
            env.update(zip(outputs, made, strict=True))
        return fx.node.map_arg(result, env.__getitem__)

    return forward
