"""Networks whose norms and injections do something, so that an error in folding them shows."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def shake(model: M, seed: int = 0) -> M:
    """Draw statistics and weights of all batch norms, some scales below zero, and zero weights."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        drawn = torch.rand(like.shape, generator=generator, dtype=torch.float64)
        return (low + (high - low) * drawn).to(like.dtype)

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.copy_(uniform(parameter, -0.2, 0.2))
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.copy_(uniform(module.running_mean, -0.5, 0.5))
                module.running_var.copy_(uniform(module.running_var, 0.5, 2))
                if module.affine:
                    signs = uniform(module.weight, -0.5, 1).sign()
                    module.weight.copy_(signs * uniform(module.weight, 0.5, 1.5))
                    module.bias.copy_(uniform(module.bias, -0.5, 0.5))
    return model


def flat(value: Any) -> Tensor:
    """All numbers of an output, whatever its structure."""
    if isinstance(value, Tensor):
        return value.flatten()
    parts = value.values() if isinstance(value, dict) else value
    return torch.cat([flat(part) for part in parts])


def difference(a: Any, b: Any) -> float:
    """The largest difference of two outputs, relative to the largest number."""
    first, second = flat(a), flat(b)
    return float((first - second).abs().max() / first.abs().max())


def norms(model: nn.Module) -> int:
    """How many batch norms a network has."""
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
