"""DistributedDataParallel, made to start the same way on a fresh run and on a resumed one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rlawrap.train.process.processes import Processes


def distribute(model: nn.Module, processes: Processes) -> nn.Module:
    """The model over all processes; the model itself when there is one process."""
    if processes.world == 1:
        return model
    device = processes.device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def settle(model: nn.Module, network: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Two dummy passes, after which weights, buffers and gradients are as before.

    DistributedDataParallel regroups its gradients after its first backward pass, and sums in
    another grouping round differently. Without these passes a resumed run would take its first
    step in the first grouping, the uninterrupted run in the second, and with three processes or
    more they would drift apart.
    """
    if not isinstance(network, DistributedDataParallel):
        return
    buffers = [buffer.clone() for buffer in model.buffers()]
    for _ in range(2):
        loss().backward()
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(value)
    model.zero_grad(set_to_none=True)
