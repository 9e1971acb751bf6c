"""h^0 = 0: what layers make of it is known beforehand, one number a channel, and goes into biases.

A convolution without bias makes zeros of zeros, at the borders too; a norm or an activation makes
one number a channel of them, the same at every pixel; so does a convolution that reads no padding.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlawrap.design.layers import Resize
from rlawrap.fuse.families import shift_result
from rlawrap.fuse.layers import (
    affine,
    conv_of,
    is_activation,
    is_sum,
    is_unpadded,
    is_zero_pad,
    norm_of,
    passes_scale,
    passes_shift,
)
from rlawrap.fuse.work import Work

#: The numbers of a value, one a channel, or one for all of them; None where they are not known.
Known = Tensor | None
#: Functions and methods that make zeros of zeros.
MOVES = (operator.getitem, torch.permute)
MOVING_METHODS = ("permute", "detach", "to", "narrow", "expand", "contiguous")


def drop_zeros(work: Work) -> None:
    """Take out h^0 and all that is known because of it."""
    known: dict[fx.Node, Tensor] = {}
    for node in list(work.graph.nodes):
        value = _known(work, node, known)
        if value is not None:
            known[node] = value
    for node in list(work.graph.nodes):
        if is_sum(node) and node not in known:
            _drop_part(work, node, known)
        elif node.op == "call_function" and node.target is torch.cat:
            _drop_channels(work, node, known)


def _is_zero(value: Known) -> bool:
    return value is not None and not bool(value.any())


def _known(work: Work, node: fx.Node, known: dict[fx.Node, Tensor]) -> Known:
    """The numbers of a value, in float64."""
    if node.op == "call_function" and node.target is torch.zeros_like:
        # h^0 alone is made so, with the channels that it lacks padded; a base's zeros may be there
        # to give a sum its shape.
        ours = bool(node.users) and all(is_zero_pad(user) for user in node.users)
        return torch.zeros((), dtype=torch.float64) if ours else None
    inputs = [known.get(a) for a in node.all_input_nodes]
    if not inputs or node.op in ("placeholder", "output"):
        return None
    if node.op == "call_function" and node.target in (operator.mul, torch.mul):
        return torch.zeros((), dtype=torch.float64) if any(map(_is_zero, inputs)) else None
    value = inputs[0]
    if value is None:
        return None
    if is_sum(node):
        return None if inputs[-1] is None else value + inputs[-1]
    moves = node.op == "call_method" and node.target in MOVING_METHODS
    if moves or node.target in MOVES or is_zero_pad(node):
        return value if _is_zero(value) else None
    if node.op == "call_function" and node.target in (torch.tanh, torch.sigmoid):
        return node.target(value)  # type: ignore[operator]
    if node.op == "call_module" and isinstance(work.root.get_submodule(str(node.target)), Resize):
        return value
    return _known_of_layer(work.layer(node), value)


def _known_of_layer(layer: nn.Module | None, value: Tensor) -> Known:
    conv = conv_of(layer)
    if conv is not None and layer is not None:
        return _convolved(layer, conv, value)
    norm = norm_of(layer)
    if norm is not None:
        scale, shift = (part.cpu() for part in affine(norm))
        return scale * value + shift
    if layer is not None and is_activation(layer):
        return layer(value.clone()).detach()
    if passes_shift(layer) or (passes_scale(layer) and _is_zero(value)):
        return value
    return None


def _convolved(layer: nn.Module, conv: Any, value: Tensor) -> Known:
    bias = None if conv.bias is None else conv.bias.detach().double().cpu()
    if _is_zero(value):
        return torch.zeros(conv.out_channels, dtype=torch.float64) if bias is None else bias
    if not is_unpadded(layer):
        return None
    weight = conv.weight.detach().double().cpu().flatten(2).sum(-1)
    inputs = value.expand(conv.in_channels).reshape(conv.groups, -1)
    rows = weight.reshape(conv.groups, -1, weight.shape[1])
    total = torch.einsum("gor,gr->go", rows, inputs).flatten()
    return total if bias is None else total + bias


def _drop_part(work: Work, node: fx.Node, known: dict[fx.Node, Tensor]) -> None:
    """Take what is known out of a sum: into the bias of what the rest is made by."""
    parts = [a for a in node.args if isinstance(a, fx.Node)]
    part = next((a for a in parts if a in known), None)
    rest = next((a for a in parts if a not in known), None)
    # A sum is a tensor of its own, which others may overwrite; what takes its place must be, too.
    if part is None or rest is None or set(rest.users) != {node}:
        return
    value = known[part]
    if not _is_zero(value):
        layer = work.layer(rest)
        channels = conv_of(layer) or norm_of(layer)
        if channels is None:
            work.note("constant of h^0", node, "it is not added to a convolution or norm")
            return
        shift_result(layer, value.expand(_width(channels)).clone())
    node.replace_all_uses_with(rest)
    work.graph.erase_node(node)
    work.note("h^0, or what is made of it, dropped", part)


def _width(layer: Any) -> int:
    return int(getattr(layer, "out_channels", 0) or layer.num_features)


def _drop_channels(work: Work, node: fx.Node, known: dict[fx.Node, Tensor]) -> None:
    """Take zeros out of [u, 0], where convolutions alone read it: their weights for u are left."""
    parts: Any = node.args[0]
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if axis != 1 or len(parts) != 2 or not _is_zero(known.get(parts[1])) or parts[0] in known:
        return
    convs = [conv_of(work.layer(user)) for user in node.users]
    if any(conv is None or conv.groups != 1 for conv in convs):
        return
    for conv in convs:
        width = conv.in_channels // 2  # u and h have k channels each
        weight = conv.weight.detach()[:, :width].clone()
        conv.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
        conv.in_channels = width
    node.replace_all_uses_with(parts[0])
    work.graph.erase_node(node)
    work.note("h^0, or what is made of it, dropped", parts[1])
