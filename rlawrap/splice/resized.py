"""A layer like another with other outputs; only of layers that compute what torch's own do."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.errors import ConfigError, PlanError

#: What to do with a layer that cannot be given other outputs.
REPLACE = "replace the layer in the base (rlawrap.unwrap(model)) and apply again."

_KINDS: tuple[type[Any], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def resized(layer: nn.Module, outputs: int) -> nn.Module:
    """A new layer like the old one, on its device and in its dtype, with other outputs."""
    kind = _kind(layer)
    assert kind is not None
    weight: Tensor = layer.weight  # type: ignore[assignment]
    named: tuple[str, ...] = ("in_features",)
    settings: tuple[str, ...] = ()
    if kind is not nn.Linear:
        named = ("in_channels",)
        settings = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    new: nn.Module = kind(
        *(getattr(layer, name) for name in named),
        outputs,
        **{name: getattr(layer, name) for name in settings},
        bias=layer.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    return new.train(layer.training)


def check_resized(path: str, layer: nn.Module, outputs: int) -> None:
    """Raises `PlanError` where `resized` would put another function in the place of a layer,
    `ConfigError` where its groups do not divide the outputs."""
    kind = _kind(layer)
    if kind is None or not _is_plain(layer, kind):
        plain = kind.__name__ if kind is not None else "layer"
        raise PlanError(
            f"reset_classifier: {path} is a {type(layer).__name__}, and a plain {plain} of "
            f"{outputs} outputs would not compute what it does; {REPLACE}"
        )
    groups: int = getattr(layer, "groups", 1)
    if outputs % groups:
        raise ConfigError(
            f"reset_classifier({outputs}): {path!r} has {groups} groups, each of which makes as "
            f"many outputs; `model.reset_classifier({-(-outputs // groups) * groups})`."
        )


def _kind(layer: nn.Module) -> type[Any] | None:
    return next((kind for kind in _KINDS if isinstance(layer, kind)), None)


def _is_plain(layer: nn.Module, kind: type[Any]) -> bool:
    """Whether a layer is one of torch's, or of a child of it that computes the same.

    Normed weights have tensors of other names. A child may have a forward of its own for old
    releases or for scripts, as those of timm and mmcv do: it is compared on random numbers.
    """
    tensors = dict(layer.named_parameters()), dict(layer.named_buffers())
    if {*tensors[0], *tensors[1]} - {"weight", "bias"} or "forward" in vars(layer):
        return False
    return _same_code(type(layer), kind) or _same_values(layer, kind)


def _same_code(cls: type[Any], kind: type[Any]) -> bool:
    names = ("__call__", "forward", "_conv_forward")
    return all(getattr(cls, name, None) is getattr(kind, name, None) for name in names)


def _same_values(layer: nn.Module, kind: type[Any]) -> bool:
    source = torch.Generator().manual_seed(0)
    twin: Any = copy.deepcopy(layer).to_empty(device="cpu").float().eval()
    for parameter in twin.parameters():
        parameter.data.normal_(generator=source)
    if kind is nn.Linear:
        shape: tuple[int, ...] = (2, twin.in_features)
    else:
        reach = zip(twin.kernel_size, twin.dilation, strict=True)
        shape = (2, twin.in_channels, *(d * (k - 1) + 4 for k, d in reach))
    x = torch.randn(shape, generator=source)
    with torch.no_grad():
        try:
            found = type(twin).forward(twin, x)
        except Exception:  # the user's code may raise anything
            return False
        plain = kind.forward(twin, x) if kind is nn.Linear else _convolved(twin, kind, x)
    same = isinstance(found, Tensor) and found.shape == plain.shape
    return same and torch.allclose(found, plain, rtol=1e-4, atol=1e-4)


def _convolved(twin: Any, kind: type[Any], x: Tensor) -> Tensor:
    """What torch's own convolution makes with the settings and weights of another."""
    made: Tensor = kind._conv_forward(twin, x, twin.weight, twin.bias)
    return made
