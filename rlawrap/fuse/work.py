"""The graph being fused: a copy of the network's, in which every call has a layer of its own."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rlawrap.cells import fast_tanh
from rlawrap.copying import copy_graph, deep_copy
from rlawrap.design.layers import Reader, Row
from rlawrap.design.names import ROOT
from rlawrap.fuse.layers import DROPOUTS, is_plain
from rlawrap.fuse.report import FuseStep

#: Functions of h that change nothing they are given, so that nobody misses an unread one.
PURE_METHODS = frozenset({"permute", "narrow", "detach", "to", "chunk", "view", "reshape"})
PURE_FUNCTIONS = frozenset(
    {
        operator.add, operator.mul, operator.sub, operator.getitem, torch.add, torch.tanh,
        torch.sigmoid, torch.cat, torch.zeros_like, torch.ones_like, F.pad, getattr,
    }
)  # fmt: skip


@dataclass
class Work:
    """A graph and the module whose layers it calls; passes over it tell what they did."""

    graph: fx.Graph
    root: nn.Module
    done: list[FuseStep] = field(default_factory=list)
    kept: list[FuseStep] = field(default_factory=list)

    @classmethod
    def of(cls, model: nn.Module, graph: fx.Graph) -> Work:
        """Copy a graph, and each layer and tensor that it uses, once for each use."""
        copied, _ = copy_graph(graph)
        work = cls(copied, nn.Module())
        for node in copied.nodes:
            if node.op == "call_module":
                layer = deep_copy(model.get_submodule(node.target))
                node.target = work.add_layer(node.target, layer)
            elif node.op == "get_attr":
                work._add_value(model, node)
            elif node.target is fast_tanh:
                node.target = torch.tanh
        return work

    def _add_value(self, model: nn.Module, node: fx.Node) -> None:
        path = str(node.target)
        parent, _, name = path.rpartition(".")
        value: Any = getattr(model.get_submodule(parent), name)
        if isinstance(value, Tensor):
            value = nn.Buffer(value.detach().clone())
        elif isinstance(value, nn.Module):
            value = deep_copy(value)
        holder, name = self._place(path)
        setattr(holder, name, value)
        node.target = name if holder is self.root else f"{parent}.{name}"

    def _place(self, path: str) -> tuple[nn.Module, str]:
        """A module to hold what a path names, and a name that is free there."""
        *parents, name = path.split(".")
        holder = self.root
        for part in parents:
            if part not in holder._modules:
                holder.add_module(part, nn.Module())
            inner = holder._modules[part]
            # A layer of the network that is called as well as looked into holds nothing of ours.
            if inner is None or type(inner) is not nn.Module:
                return self._free(self.root, path.replace(".", "_"))
            holder = inner
        return self._free(holder, name)

    def _free(self, holder: nn.Module, name: str) -> tuple[nn.Module, str]:
        free, number = name, 1
        while hasattr(holder, free):
            number += 1
            free = f"{name}_use{number}"
        return holder, free

    def add_layer(self, path: str, layer: nn.Module) -> str:
        """Put a layer at a path, or beside what is there; returns where it lies."""
        holder, name = self._place(path)
        holder.add_module(name, layer)
        return name if holder is self.root else f"{path.rpartition('.')[0]}.{name}"

    def replace_layer(self, node: fx.Node, layer: nn.Module) -> None:
        """Give a call another layer, at the same path."""
        parent, _, name = str(node.target).rpartition(".")
        self.root.get_submodule(parent).add_module(name, layer)

    def layer(self, node: fx.Node) -> nn.Module | None:
        """The layer that a node calls with one value alone; None for other nodes."""
        if node.op != "call_module" or node.kwargs or len(node.args) != 1:
            return None
        return self.root.get_submodule(str(node.target)) if node.all_input_nodes else None

    def skip(self, node: fx.Node) -> None:
        """Let those who read a node read what it reads."""
        (source,) = node.all_input_nodes
        node.replace_all_uses_with(source)
        self.graph.erase_node(node)

    def note(self, what: str, node: fx.Node | str, why: str = "") -> None:
        """Tell what was done, or left for a reason."""
        where = node if isinstance(node, str) else place(node)
        (self.kept if why else self.done).append(FuseStep(what, where, why))


def place(node: fx.Node) -> str:
    """How the report names a node: by the layer that it calls, or by its own name."""
    return str(node.target) if node.op == "call_module" else node.name


def open_containers(work: Work) -> None:
    """Call the layers of h's ways one by one, and drop what does nothing in evaluation."""
    for node in list(work.graph.nodes):
        layer = work.root.get_submodule(str(node.target)) if node.op == "call_module" else None
        if layer is not None and type(layer) in (nn.Sequential, Row) and is_plain(layer):
            _open(work, node, layer)
    for node in list(work.graph.nodes):
        layer = work.layer(node)
        if layer is None or layer.training or not is_plain(layer):
            continue
        if isinstance(layer, (nn.Identity, *DROPOUTS)):
            work.note("layer that does nothing dropped", node)
            work.skip(node)


def _open(work: Work, node: fx.Node, layer: Any) -> None:
    value, *others = node.args
    rest = iter(others)
    with work.graph.inserting_before(node):
        for name, child in layer.named_children():
            path = work.add_layer(f"{node.target}_{name}", child)
            own = (next(rest),) if isinstance(child, Reader) else ()
            value = work.graph.call_module(path, (value, *own))
    node.replace_all_uses_with(value)  # type: ignore[arg-type]
    work.graph.erase_node(node)


def drop_unread(work: Work) -> None:
    """Drop what is computed of h and read by nobody, such as the last update where no head reads h.

    Of the base nothing is dropped: a call that nobody reads may overwrite what others read.
    """
    for node in reversed(list(work.graph.nodes)):
        if node.users:
            continue
        ours = node.op == "call_module" and str(node.target).startswith(f"{ROOT}.")
        pure = node.op == "call_function" and node.target in PURE_FUNCTIONS
        method = node.op == "call_method" and node.target in PURE_METHODS
        if ours or pure or method or node.op == "get_attr":
            work.note("unread operation dropped", node)
            work.graph.erase_node(node)
