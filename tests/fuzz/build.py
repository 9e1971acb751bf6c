"""NetSpec -> a network with random weights and statistics, and inputs for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.fuzz.functional import FunctionalNetwork
from tests.fuzz.network import IMAGE_CHANNELS, SIGNATURES
from tests.fuzz.refused import WRAPPERS
from tests.fuzz.spec import NetSpec


def build(spec: NetSpec) -> nn.Module:
    """The network of a spec; the same each time. The global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        if spec.functional:
            net: nn.Module = FunctionalNetwork(spec)
        else:
            net = SIGNATURES[spec.arguments](spec)
        randomise(net)
    net = net.to(getattr(torch, spec.dtype))
    if spec.refused in WRAPPERS:
        net = WRAPPERS[spec.refused](net)
    net.train(spec.training)
    if spec.frozen:
        for parameter in list(net.parameters())[:2]:
            parameter.requires_grad_(False)
    if spec.hooked:
        leaf = next(m for m in net.modules() if not list(m.children()))
        leaf.register_forward_hook(lambda module, args, output: output * 1.5)
    return net


def randomise(net: nn.Module) -> None:
    """Norms unlike their first values, in statistics and weights: nothing hides behind them."""
    with torch.no_grad():
        for name, tensor in net.named_buffers():
            if name.endswith(("mean", "running_mean")):
                tensor.normal_(0, 0.3)
            elif name.endswith("var"):
                tensor.uniform_(0.5, 2.0)
        for module in net.modules():
            weight = getattr(module, "weight", None)
            if "Norm" in type(module).__name__ and weight is not None:
                weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)


def inputs_of(
    spec: NetSpec, *, seed: int, batch: int = 4, size: tuple[int, ...] | None = None
) -> dict[str, Any]:
    """Arguments of the network's forward, by name."""
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, spec.dtype)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    size = size or spec.size
    image = noise(batch, IMAGE_CHANNELS, *size)
    if spec.functional:
        return {"x": image}
    if spec.arguments == "keyword":
        return {"image": image}
    if spec.arguments == "domain":
        return {"x": image, "domain": "b"}
    if spec.arguments == "listed":
        return {"images": [image, noise(batch, IMAGE_CHANNELS, *size)]}
    if spec.arguments == "condition":
        return {"x": image, "condition": noise(batch, 4)}
    if spec.arguments == "guide":
        return {"x": image, "guide": noise(batch, IMAGE_CHANNELS, *size)}
    if spec.arguments == "mask":
        return {"x": image, "mask": (noise(batch, 1, *size) > 0).to(dtype)}
    return {"x": image}


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors of an answer, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors_of(v)]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors_of(v)]
    return []
