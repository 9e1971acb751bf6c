"""A shadow of the user's model: the same modules and attributes on tensors without memory.

The user's model is never run itself. Of its shadow every tensor is a meta tensor, so that running
it allocates nothing, computes nothing, and leaves the model's mode, buffers and hooks as they were.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rlawrap._torch import hook_tables
from rlawrap.capture.bound import bound_methods, put_into_class
from rlawrap.capture.code import CACHED, Code, code_of
from rlawrap.capture.meta import OnMeta, empty_like
from rlawrap.capture.own_hooks import Keeper, computes, keep_hooks
from rlawrap.capture.places import Places
from rlawrap.capture.results import Results
from rlawrap.copying import copy_views
from rlawrap.errors import PlanError


@dataclass(frozen=True)
class Shadow:
    """The shadow of a network, and where the network lies."""

    root: nn.Module
    device: torch.device
    dtype: torch.dtype
    #: By id of a tensor of the shadow that the state does not hold: the network's own tensor. Of
    #: buffers only whole numbers that are in no state dict, such as a stride or an index.
    originals: Mapping[int, Tensor]
    #: The Python modules that the network's code lies in.
    code: tuple[Code, ...]
    #: Where its tensors lie, where that is more than one device.
    places: Places
    #: Hooks of the network that keep values for it.
    keepers: tuple[Keeper, ...]
    #: The network's own buffers.
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    #: What calls returned, for all recordings of the network.
    results: Results = field(default_factory=Results)

    @functools.cached_property
    def modules(self) -> Mapping[str, nn.Module]:
        """The modules of the shadow by every path that leads to them; no recording changes them."""
        return dict(self.root.named_modules(remove_duplicate=False))

    def on_meta(self) -> OnMeta:
        """The mode in which the shadow runs."""
        return OnMeta(self.device)


class _Copying(TorchFunctionMode):
    """Tensors are copied as meta tensors; those that a forward left behind can be copied, too."""

    def __init__(self, originals: dict[int, Tensor]) -> None:
        super().__init__()
        self.originals = originals

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            twin = empty_like(tensor)
            self.originals[id(twin)] = tensor.detach()
            memo[id(tensor)] = twin
        return memo[id(tensor)]


def make_shadow(model: nn.Module) -> Shadow:
    """A copy of `model` without memory; without hooks, but for those that are part of it.

    Raises `PlanError` for a lazy model and for one that cannot be copied.
    """
    memo: dict[int, Any] = {}
    originals: dict[int, Tensor] = {}
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    for name, tensor in tensors.items():
        if torch.nn.parameter.is_lazy(tensor):
            raise PlanError(
                f"{name!r} is lazy and has no shape yet; run the model once first, `model(x)`."
            )
        if id(tensor) not in memo:
            memo[id(tensor)] = _twin(tensor)
    for module in model.modules():
        for name in module._non_persistent_buffers_set:
            buffer = module._buffers.get(name)
            if buffer is not None and not (buffer.is_floating_point() or buffer.is_complex()):
                originals[id(memo[id(buffer)])] = buffer.detach()
        for table in hook_tables(module):
            kept = {key: hook for key, hook in table.items() if computes(hook)}
            memo[id(table)] = OrderedDict((k, copy.deepcopy(h)) for k, h in kept.items())
    try:
        with _Copying(originals):
            copy_views(model, memo)
            root = copy.deepcopy(model, memo)
            keepers = keep_hooks(model, memo)
    except Exception as error:
        raise PlanError(f"the model cannot be copied: {type(error).__name__}: {error}") from error
    for module in root.modules():
        cached = {k: v for k, v in vars(module).items() if isinstance(v, CACHED)}
        vars(module).update({name: function.__wrapped__ for name, function in cached.items()})
    put_into_class(root, bound_methods(model))
    device, dtype = device_and_dtype(model)
    lies = {id(memo[id(tensor)]): tensor.device for tensor in tensors.values()}
    lies.update((key, tensor.device) for key, tensor in originals.items())
    places = Places(root, lies, device)
    buffers = dict(model.named_buffers(remove_duplicate=False))
    return Shadow(root, device, dtype, originals, code_of(model), places, keepers, buffers)


def _twin(tensor: Tensor) -> Tensor:
    twin = empty_like(tensor.detach())
    if isinstance(tensor, nn.Parameter):
        # Nothing needs a gradient of it, and PyTorch would refuse in training what it lets pass
        # without gradients, such as writing into a part of a split.
        twin = nn.Parameter(twin, requires_grad=False)
    return twin


def device_and_dtype(*networks: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the first network with floating-point tensors has them, and their type."""
    for network in networks:
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32
