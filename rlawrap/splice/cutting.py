"""Cutting a rewritten network down to its feature maps: the graph, and the modules it uses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import fx, nn

from rlawrap.capture.overwrites import writes_in_place

#: What a backbone's forward returns.
Output = Literal["dict", "list", "tuple"]


def cut(graph: fx.Graph, targets: Mapping[str, str], model: nn.Module, output: Output) -> None:
    """Let the graph return the nodes of these targets, and drop what nothing reads any more."""
    modules = dict(model.named_modules(remove_duplicate=False))
    by_target = {str(n.target): n for n in graph.nodes if n.op == "call_module"}
    outputs = {name: by_target[target] for name, target in targets.items()}
    old = next(n for n in graph.nodes if n.op == "output")
    graph.erase_node(old)
    last = max(outputs.values())
    for node in reversed(list(graph.nodes)):
        behind = last < node
        # In front of the last map a value that nothing reads may still be a write to one that is.
        idle = not node.users and writes_in_place(modules.get(str(node.target)), node) is None
        if node.op != "placeholder" and node not in outputs.values() and (behind or idle):
            graph.erase_node(node)
    if output == "dict":
        with graph.inserting_after(last):
            made: Any = graph.call_function(OrderedDict, (list(outputs.items()),))
    else:
        made = list(outputs.values()) if output == "list" else tuple(outputs.values())
    graph.output(made)
    graph.lint()


def prune(model: nn.Module, graphs: Iterable[fx.Graph], watched: set[str]) -> None:
    """Delete the modules and parameters that the cut graphs no longer use.

    Of the modules that were traced through, those with a mode that matters stay.
    """
    used: set[str] = set()
    nodes = [node for graph in graphs for node in graph.nodes]
    for node in nodes:
        if node.op in ("call_module", "get_attr"):
            path = str(node.target)
            used.add(path)
            while path:
                path = path.rpartition(".")[0]
                used.add(path)
    used |= {path for path in watched if path.rpartition(".")[0] in used}
    called = {str(n.target) for n in nodes if n.op == "call_module"}
    _prune_children(model, "", used, called)


def _prune_children(module: nn.Module, prefix: str, used: set[str], called: set[str]) -> None:
    for name, child in list(module._modules.items()):
        path = f"{prefix}{name}"
        if path in called or child is None:
            continue
        if path not in used:
            del module._modules[name]
        else:
            _prune_children(child, f"{path}.", used, called)
    tensors: Any = (module._parameters, module._buffers)
    for table in tensors:
        for name, value in list(table.items()):
            if value is not None and f"{prefix}{name}" not in used:
                del table[name]
