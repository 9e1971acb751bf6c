"""DistributedDataParallel, made to start the same way on a fresh run and on a resumed one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rlawrap.errors import ConfigError, few
from rlawrap.train.process.processes import Processes


def distribute(model: nn.Module, processes: Processes) -> nn.Module:
    """The model over all processes; the model itself when there is one process."""
    if processes.world == 1:
        return model
    device = processes.device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def settle(
    model: nn.Module, network: nn.Module, loss: Callable[[], Tensor], processes: Processes
) -> None:
    """Two dummy passes, after which weights, buffers and gradients are as before.

    DistributedDataParallel regroups its gradients after its first backward pass, and sums in
    another grouping round differently. Without these passes a resumed run would take its first
    step in the first grouping, the uninterrupted run in the second, and with three processes or
    more they would drift apart.

    Raises `ConfigError` for parameters that take no part in the loss, for which
    DistributedDataParallel would wait in vain.
    """
    if not isinstance(network, DistributedDataParallel):
        return
    buffers = [buffer.clone() for buffer in model.buffers()]
    with network.no_sync():
        loss().backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    unused = sorted({name for names in processes.gather(missing) for name in names})
    if unused:
        error = ConfigError(_unused_text(_parts_of(model, unused)))
        error.told_by_first = not processes.first
        raise error
    model.zero_grad(set_to_none=True)
    for _ in range(2):
        loss().backward()
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(value)
    model.zero_grad(set_to_none=True)


def _unused_text(parts: list[str]) -> str:
    freeze = " ".join(f"--freeze {part}" for part in parts)
    return (
        f"{few(parts)}: takes no part in the loss, and several processes would wait for its "
        f"gradient. Leave it untrained, {freeze} (from Python: freeze={tuple(parts)!r}), or train "
        "in one process."
    )


def _parts_of(model: nn.Module, names: list[str]) -> list[str]:
    """Parameters by name, as the largest modules that hold no others which are trained.

    >>> both = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    >>> _parts_of(both, ["a.bias", "a.weight"])
    ['a']
    """
    used = [n for n, p in model.named_parameters() if p.requires_grad and n not in names]

    def part_of(name: str) -> str:
        steps = name.split(".")
        wholes = (".".join(steps[:count]) for count in range(1, len(steps)))
        return next((w for w in wholes if not any(n.startswith(f"{w}.") for n in used)), name)

    return list(dict.fromkeys(part_of(name) for name in names))
