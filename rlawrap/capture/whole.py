"""What a module that is kept whole returns: on meta, or on real tensors if it asks for values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlawrap._torch import pytree, without_modes
from rlawrap.capture.effects import random_generators_kept
from rlawrap.capture.meta import OnMeta, empty_like
from rlawrap.copying import deep_copy


def run_whole(module: Any, args: Any, kwargs: Any, device: torch.device) -> Any:
    """Call a module of a shadow on meta tensors; one whose code asks for values runs on real ones.

    Raises what the module itself raises where it does not take these tensors.
    """
    if type(module).__module__.startswith("torch.nn.modules."):
        with without_modes():
            return module(*args, **kwargs)
    with random_generators_kept(), without_modes():
        try:
            return module(*args, **kwargs)
        except Exception:
            pass
    with random_generators_kept():
        try:
            with without_modes(), OnMeta(device):
                return module(*args, **kwargs)
        except Exception:
            return _run_real(module, args, kwargs)


def _run_real(module: Any, args: Any, kwargs: Any) -> Any:
    def real(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        random = value.is_floating_point()
        return (torch.rand if random else torch.zeros)(tuple(value.shape), dtype=value.dtype)

    with without_modes(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        twin = module
        if isinstance(module, nn.Module):
            memo: dict[int, Any] = {}
            for tensor in (*module.parameters(), *module.buffers()):
                value = real(tensor)
                # With gradients: it may put hooks on what it computes.
                learned = isinstance(tensor, nn.Parameter) and value.is_floating_point()
                memo[id(tensor)] = nn.Parameter(value) if learned else value
            twin = deep_copy(module, memo)
        out = twin(*pytree.tree_map(real, args), **pytree.tree_map(real, kwargs))
    return pytree.tree_map_only(Tensor, lambda t: empty_like(t.detach()), out)
