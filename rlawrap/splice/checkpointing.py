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

from rlawrap.discover.overwrites import writes_in_place


def segments(graph: fx.Graph, modules: dict[str, nn.Module]) -> list[list[fx.Node]]:
    """Runs of nodes that end at a block's output and overwrite nothing an earlier run made."""
    runs: list[list[fx.Node]] = [[]]
    for node in graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        runs[-1].append(node)
        if node.op == "call_module" and str(node.target).startswith("rla.out."):
            runs.append([])
    merged: list[list[fx.Node]] = []
    for run in runs:
        own = set(run)
        outside = any(
            target is not None and target not in own
            for node in run
            for target in [writes_in_place(modules.get(str(node.target)), node)]
        )
        # Run again, an overwritten input would be overwritten twice.
        if merged and (outside or not run):
            merged[-1] += run
        elif run:
            merged.append(run)
    return merged


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
    code = graph.python_code(root_module="self")
    namespace = dict(code.globals)
    exec(compile(code.src, "<rlawrap segment>", "exec"), namespace)
    return namespace["forward"], inputs, outputs


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
