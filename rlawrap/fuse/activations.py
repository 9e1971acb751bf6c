"""tanh(z) = 2 (sigmoid(2z) - 1/2): the twos go into the layers around, and sigmoid is faster."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from rlawrap.cells import fast_tanh
from rlawrap.design.names import ROOT
from rlawrap.fuse.families import can_scale, family_of, scale_family
from rlawrap.fuse.layers import HalfTanh, conv_of, is_sum, norm_of
from rlawrap.fuse.work import Work


def halve_tanh(work: Work) -> None:
    """Put sigmoid for tanh where what it reads can be doubled and what reads it halved back."""
    for node in list(work.graph.nodes):
        if node.op != "call_function" or node.target is not torch.tanh:
            continue
        source = node.all_input_nodes[0]
        before = family_of(work, source, node)
        after = family_of(work, node, given=(node,))
        problem = can_scale(before, 2.0) or can_scale(after, 0.5)
        if not problem and set(before.members) & set(after.members):
            problem = "what it reads depends on what it makes"
        if problem:
            work.note("tanh", node, problem)
            node.target = fast_tanh
            continue
        scale_family(work, before, 2.0)
        scale_family(work, after, 0.5)
        with work.graph.inserting_before(node):
            path = work.add_layer("rla.half_tanh", HalfTanh())
            node.replace_all_uses_with(work.graph.call_module(path, (source,)))
        work.graph.erase_node(node)
        work.note("tanh computed by sigmoid", node.name)


def overwrite(work: Work) -> None:
    """Add h's shares, and apply activations, in place where nobody else reads the value."""
    for node in list(work.graph.nodes):
        if is_sum(node) and any(_is_ours(a) for a in node.all_input_nodes):
            first, second = (a for a in node.args if isinstance(a, fx.Node))
            fresh = next((a for a in (first, second) if _is_free(work, a, node)), None)
            if fresh is not None and first is not second:
                node.args = (fresh, second if fresh is first else first)
                node.target = operator.iadd
                work.note("sum written over its first part", node)
        layer = work.layer(node)
        apart = isinstance(layer, (nn.ReLU, nn.ReLU6, HalfTanh)) and not layer.inplace
        if apart and _is_free(work, node.all_input_nodes[0], node):
            layer.inplace = True  # type: ignore[union-attr,assignment]
            work.note("activation in place", node)


def _is_free(work: Work, node: fx.Node, reader: fx.Node) -> bool:
    """Whether a node makes a new tensor that `reader` alone reads and no backward pass needs."""
    if set(node.users) != {reader}:
        return False
    layer = work.layer(node)
    new = conv_of(layer) is not None or norm_of(layer) is not None or isinstance(layer, nn.Linear)
    return new or is_sum(node) or node.target is operator.iadd


def _is_ours(node: fx.Node) -> bool:
    """Whether h's layers make a value: what it is added to has the same shape."""
    return node.op == "call_module" and str(node.target).startswith(f"{ROOT}.")
