"""Xceptions with a hidden state: timm's networks, and one for 32x32 images.

The paper has results for Xception, its repository no code. What is here is this library's choice:
the blocks are the modules with a shortcut, h enters at the first separable convolution of each (as
a depthwise convolution of its own beside the base's, joined by the pointwise one), and the cells
read the residual branch, as the paper draws it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.models.cifar import IMAGE_SIZE
from rlawrap.models.model_registry import register_model

#: Our names and timm's.
TIMM = {
    "rla_xception": "legacy_xception",
    "rla_xception41": "xception41",
    "rla_xception65": "xception65",
    "rla_xception71": "xception71",
}


def _timm_builder(name: str, theirs: str) -> Callable[..., nn.Module]:
    def build(
        *, k: int = 32, num_classes: int = 1000, weights: str | None = None, **options: Any
    ) -> nn.Module:
        return _build(name, theirs, k, num_classes, weights, options)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = (
        f"timm's {theirs} and a hidden state of k channels; takes num_classes=1000, weights=None "
        '("DEFAULT", or the tag of weights of timm) and fields of `RLAConfig`.'
    )
    return build


def _build(
    name: str, theirs: str, k: int, num_classes: int, weights: str | None, options: dict[str, Any]
) -> nn.Module:
    """Raises `ConfigError` without timm or for an unknown tag, `CheckpointError` for weights that
    cannot be fetched."""
    if importlib.util.find_spec("timm") is None:
        raise ConfigError(f"{name}: it is a network of timm; pip install 'rlawrap[timm]'.")
    import timm

    from rlawrap.config import variant
    from rlawrap.splice import apply

    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{theirs}.*")]
    if weights not in (None, "DEFAULT", *tags):
        raise ConfigError(f"{name}(weights={weights!r}): choose DEFAULT or {', '.join(tags)}.")
    full = theirs if weights in (None, "DEFAULT") else f"{theirs}.{weights}"
    try:
        base = timm.create_model(full, pretrained=weights is not None, num_classes=num_classes)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{name}(weights={weights!r}): cannot be fetched: {error}") from error
    if weights is not None:
        options.setdefault("init", "identity")
    return apply(base, config=variant("rla_xception", k=k, **options))


for _name, _theirs in TIMM.items():
    register_model(_name)(_timm_builder(_name, _theirs))


class SeparableConv(nn.Sequential):
    """Activation, depthwise and pointwise convolution, norm."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )


class XceptionBlock(nn.Module):
    """Separable convolutions beside a shortcut; the last one has the stride, where there is one."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1, depth: int = 2) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * depth]
        strides = [*[1] * (depth - 1), stride]
        self.body = nn.Sequential(
            *(SeparableConv(widths[i], widths[i + 1], strides[i]) for i in range(depth))
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class CifarXception(nn.Module):
    """An Xception for 32x32 images: entry, middle and exit flow at 32x32, 16x16 and 8x8.

    Its sizes are this library's: widths 64, 128, 256 and 512, four blocks of three separable
    convolutions in the middle. `layer1` to `layer3` hold the blocks of one resolution each.

    >>> CifarXception()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.default_cfg = {"input_size": (in_channels, *IMAGE_SIZE)}
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32)
        )
        self.layer1 = nn.Sequential(XceptionBlock(32, 64), XceptionBlock(64, 128))
        self.layer2 = nn.Sequential(
            XceptionBlock(128, 256, stride=2), *(XceptionBlock(256, 256, depth=3) for _ in range(4))
        )
        self.layer3 = nn.Sequential(XceptionBlock(256, 512, stride=2), XceptionBlock(512, 512))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return self.fc(torch.flatten(self.avgpool(torch.relu(x)), 1))


@register_model("cifar_xception")
def cifar_xception(
    *, num_classes: int = 10, in_channels: int = 3, weights: None = None
) -> CifarXception:
    """An Xception for 32x32 images. Takes num_classes=10, in_channels=3."""
    if weights is not None:
        raise ConfigError(
            f"cifar_xception(weights={weights!r}): there are no published weights for it. Build it "
            "without weights=, then load your own with load_state_dict."
        )
    return CifarXception(num_classes=num_classes, in_channels=in_channels)


@register_model("rla_cifar_xception")
def rla_cifar_xception(*, k: int = 8, **kwargs: Any) -> nn.Module:
    """`cifar_xception` with a hidden state of k channels; also takes fields of `RLAConfig`."""
    from rlawrap.config import variant
    from rlawrap.splice import apply

    own = ("num_classes", "in_channels", "weights")
    base = cifar_xception(**{name: kwargs.pop(name) for name in own if name in kwargs})
    return apply(base, config=variant("rla_xception", k=k, **kwargs))
