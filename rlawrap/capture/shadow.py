"""A shadow of the user's model: the same modules and attributes on tensors without memory.

The user's model is never traced itself. Of its shadow every parameter and buffer is a fake tensor,
so that tracing allocates nothing, computes nothing, and leaves the model's mode, buffers and hooks
as they were.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from rlawrap._torch import FakeTensorMode
from rlawrap.errors import PlanError


def make_shadow(model: nn.Module, fake_mode: FakeTensorMode) -> nn.Module:
    """A copy of `model` whose parameters and buffers are fake tensors (no memory)."""
    memo: dict[int, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if torch.nn.parameter.is_lazy(tensor):
            raise PlanError(f"{name!r} is lazy and has no shape yet; run the model once first.")
        memo[id(tensor)] = fake_mode.from_tensor(tensor)
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise PlanError(f"the model cannot be copied: {type(error).__name__}: {error}") from error


def device_and_dtype(*networks: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the first network with floating-point tensors has them, and their type."""
    for network in networks:
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32
