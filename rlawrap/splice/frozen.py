"""What `freeze_base` froze of a network, and its norms, which no `train()` wakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm

from rlawrap._torch import NormBase, own_pre_hooks
from rlawrap._torch import SpectralNorm as ParametrizedSpectralNorm
from rlawrap.design.heads import lies_in
from rlawrap.design.names import is_added


@dataclass(frozen=True)
class Frozen:
    """Names of the parameters that were frozen, and paths of the base's parts that learn on."""

    parameters: tuple[str, ...]
    learning: tuple[str, ...] = ()


def is_norm(module: nn.Module) -> bool:
    """Whether a module is one of torch's norms by statistics, or has running ones of its own.

    Spectral norm's are estimates of a weight's largest singular value: a parametrization or a layer
    whose hook it is moves them in train mode.
    """
    if isinstance(module, (NormBase, ParametrizedSpectralNorm)):
        return True
    hooks = own_pre_hooks(module).values()
    estimates = any(isinstance(hook, SpectralNorm) for hook in hooks)
    return estimates or isinstance(module._buffers.get("running_mean"), Tensor)


def still_norms(network: nn.Module, learning: tuple[str, ...]) -> dict[str, nn.Module]:
    """The norms of the base, by path, but for those in parts that learn."""
    return {
        path: module
        for path, module in network.named_modules()
        if is_norm(module)
        and not is_added(path)
        and not any(lies_in(path, part) for part in learning)
    }


def keep_still(network: Any) -> None:
    """Set to evaluation mode what no `train()` wakes of a rewritten network.

    Those are the modules that a backbone keeps so, and the norms of a base that `freeze_base`
    froze; what lies inside of such a norm keeps its mode.
    """
    maps, frozen = network.rla.splice.maps, network.rla.splice.frozen
    for path in maps.still if maps is not None else ():
        network.get_submodule(path).training = False
    if frozen is not None:
        for norm in still_norms(network, frozen.learning).values():
            norm.training = False


def thaw(network: nn.Module, frozen: Frozen, base: type[nn.Module]) -> None:
    """Let learn what was frozen; norms take the mode of the network, or what `base` keeps them in.

    Parameters that have gone since are passed over.
    """
    parameters = dict(network.named_parameters())
    for name in frozen.parameters:
        if name in parameters:
            parameters[name].requires_grad_(True)
    for norm in still_norms(network, frozen.learning).values():
        norm.training = network.training
    if base.train is not nn.Module.train:
        network.train(network.training)
