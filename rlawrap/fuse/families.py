"""Families: the values that have to be scaled together so that the network computes the same.

Multiply the channels of one value by s. What makes it, a convolution or a norm, takes s into its
weights; where it is a sum, both of its parts are scaled; and so is all that pooling, padding and
slicing make of a scaled value. The convolutions and norms that read it take 1/s into theirs. Where
anything else makes or reads it, there is no such family, and the value stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlawrap.fuse.layers import (
    conv_of,
    is_monotone,
    is_sum,
    is_zero_pad,
    norm_of,
    passes_scale,
    scaled_norm_of,
)
from rlawrap.fuse.work import Work

#: A family of more values would be the main path of a whole stage rather than h.
LARGEST = 24


@dataclass
class Family:
    """Values to scale together. `problem` says why there is none; the other fields are void then.

    makers: nodes of convolutions and norms whose results are scaled. readers: those that read a
    scaled value and take the inverse. monotone: whether only scales above zero will do.
    """

    members: dict[fx.Node, None] = field(default_factory=dict)
    makers: list[fx.Node] = field(default_factory=list)
    readers: list[fx.Node] = field(default_factory=list)
    monotone: bool = False
    problem: str = ""


def family_of(
    work: Work, node: fx.Node, reader: fx.Node | None = None, given: Collection[fx.Node] = ()
) -> Family:
    """The family of a value.

    reader: a node that reads it and shall get it scaled. given: nodes whose results are scaled by
    other means, such as an activation that is replaced.
    """
    family = Family()
    stack = [node]
    while stack:
        member = stack.pop()
        if member in family.members:
            continue
        family.members[member] = None
        family.monotone |= is_monotone(work.layer(member))
        if len(family.members) > LARGEST:
            return Family(problem="too many values depend on it")
        if not _made(work, member, family, stack, given):
            return Family(problem=f"{_kind(work, member)} makes a value that would be scaled")
        for user in member.users:
            if user is reader:
                continue
            if is_sum(user) or _passes(work, user):
                stack.append(user)
            elif _takes(work, user):
                if user not in family.readers:
                    family.readers.append(user)
            else:
                return Family(problem=f"{_kind(work, user)} reads a value that would be scaled")
    if reader is not None and (reader in family.readers or reader in family.members):
        return Family(problem="the layer reads a value that depends on itself")
    if any(node in family.readers for node in family.members):
        return Family(problem="a layer both makes and reads it")
    return family


def _made(
    work: Work,
    node: fx.Node,
    family: Family,
    stack: list[fx.Node],
    given: Collection[fx.Node],
) -> bool:
    """Whether what makes a value can scale it; what it is made of is put on the stack."""
    layer = work.layer(node)
    if node in given:
        return True
    if conv_of(layer) is not None or scaled_norm_of(layer) is not None:
        family.makers.append(node)
        return True
    if is_sum(node) or _passes(work, node):
        stack.extend(node.all_input_nodes)
        return True
    return False


def _passes(work: Work, node: fx.Node) -> bool:
    layer = work.layer(node)
    return passes_scale(layer) or is_monotone(layer) or is_zero_pad(node)


def _takes(work: Work, node: fx.Node) -> bool:
    """Whether a node is a layer that can undo a scale of what it reads."""
    layer = work.layer(node)
    return conv_of(layer) is not None or norm_of(layer) is not None


def _kind(work: Work, node: fx.Node) -> str:
    """What a node is, for a reason."""
    layer = work.layer(node)
    if layer is not None:
        return type(layer).__name__
    if node.op == "output":
        return "the output"
    return str(getattr(node.target, "__name__", node.target))


def scale_family(work: Work, family: Family, factor: Tensor | float) -> None:
    """Scale the channels of all values of a family, and undo it where they are read.

    factor: one number, or one for each channel, in float64. Raises nothing: `can_scale` says
    whether it may be called.
    """
    for node in family.makers:
        scale_result(work.layer(node), factor)
    for node in family.readers:
        _scale_input(work.layer(node), 1 / torch.as_tensor(factor, dtype=torch.float64))


def can_scale(family: Family, factor: Tensor | float) -> str:
    """Why the values of a family cannot be scaled by a factor; "" if they can."""
    if family.problem:
        return family.problem
    values = torch.as_tensor(factor, dtype=torch.float64)
    if family.monotone and bool((values <= 0).any()):
        return "a scale that is not above zero, and a ReLU or maximum behind it"
    values = values.abs()
    if not bool(torch.isfinite(values).all()):
        return "a scale that is not finite"
    # What is read elsewhere has to be scaled back: 1e-18 leaves float32 room on both sides.
    if family.readers and bool((values < 1e-18).any()):
        return "a channel's scale is 0, and other layers read the channel"
    return ""


def scale_result(layer: nn.Module | None, factor: Tensor | float) -> None:
    """Multiply what a convolution or norm returns."""
    norm = scaled_norm_of(layer)
    if norm is not None:
        _give_weights(norm)
        norm.weight = _times(norm.weight, factor)
        norm.bias = _times(norm.bias, factor)
        return
    conv = conv_of(layer)
    conv.weight = _times(conv.weight, _along(factor, conv.weight.dim()))
    if conv.bias is not None:
        conv.bias = _times(conv.bias, factor)


def shift_result(layer: nn.Module | None, shift: Tensor) -> None:
    """Add to each channel of what a convolution or norm returns."""
    target = norm_of(layer)
    if target is not None:
        _give_weights(target)
    else:
        target = conv_of(layer)
    weight, bias = target.weight, target.bias
    total = shift.to(weight.device) if bias is None else bias.double() + shift.to(bias.device)
    target.bias = nn.Parameter(total.to(weight.dtype), requires_grad=weight.requires_grad)


def _scale_input(layer: nn.Module | None, factor: Tensor) -> None:
    """Let a convolution or norm multiply each channel that it reads."""
    norm = norm_of(layer)
    if norm is not None:
        # norm(z) with z = f z~: its mean is that of z, so z~'s is 1/f of it.
        _give_weights(norm)
        norm.running_mean = (norm.running_mean.double() / factor.to(norm.running_mean.device)).to(
            norm.running_mean.dtype
        )
        norm.weight = _times(norm.weight, factor)
        return
    conv = conv_of(layer)
    weight = conv.weight
    if factor.dim():
        # Output channels of a group read that group's inputs alone.
        groups = factor.reshape(conv.groups, 1, -1)
        rows = groups.expand(-1, conv.out_channels // conv.groups, -1)
        factor = rows.reshape(conv.out_channels, -1, *[1] * (weight.dim() - 2))
    conv.weight = _times(weight, factor)


def _along(factor: Tensor | float, dims: int) -> Tensor | float:
    """A factor of rows, shaped to multiply a weight."""
    if isinstance(factor, Tensor) and factor.dim():
        return factor.reshape(-1, *[1] * (dims - 1))
    return factor


def _times(value: Tensor, factor: Tensor | float) -> nn.Parameter:
    factor = torch.as_tensor(factor, dtype=torch.float64, device=value.device)
    scaled = (value.detach().double() * factor).to(value.dtype)
    return nn.Parameter(scaled, requires_grad=value.requires_grad)


def _give_weights(norm: Any) -> None:
    """Give a norm without weights those that change nothing."""
    like = norm.weight if isinstance(norm, nn.GroupNorm) else norm.running_mean
    if norm.weight is None:
        norm.weight = nn.Parameter(torch.ones_like(like), requires_grad=False)
    if norm.bias is None:
        norm.bias = nn.Parameter(torch.zeros_like(like), requires_grad=False)
