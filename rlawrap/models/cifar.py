"""ResNets for 32x32 images: depth 20, 32, 56, 110 and 164, and their RLA forms.

Depths 20 to 110 are the basic-block networks of He et al., "Deep residual learning for image
recognition" (2016), section 4.2: a 3x3 stem of 16 channels, three stages of n blocks with 16,
32 and 64 channels, depth = 6n + 2, and shortcuts without parameters. Depth 164 is the
pre-activation bottleneck network of "Identity mappings in deep residual networks" (2016),
depth = 9n + 2.

The RLA forms take k = 8 by default: half the width of the narrowest block, the ratio that
RLA-ResNet50 has (32 to 64). No published recipe or figure stands behind that choice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlawrap.errors import ConfigError
from rlawrap.models.model_registry import register_model

IMAGE_SIZE = (32, 32)
STAGE_WIDTHS = (16, 32, 64)


class PadShortcut(nn.Module):
    """A shortcut without parameters: every second pixel, and zeros for the new channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        before = self.new_channels // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, before, self.new_channels - before))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with a batch norm, and the activation after the addition."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != width:
            self.shortcut = PadShortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.shortcut(x))


class PreActBottleneck(nn.Module):
    """Norm, activation, convolution, three times: 1x1 down, 3x3, 1x1 up; nothing after the add.

    Where the size changes, the shortcut is a 1x1 convolution of the normalised input.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(x))
        identity = x if self.shortcut is None else self.shortcut(y)
        y = self.conv1(y)
        y = self.conv2(self.relu(self.bn2(y)))
        y = self.conv3(self.relu(self.bn3(y)))
        return y + identity


class CifarResNet(nn.Module):
    """A ResNet of three stages for small images: (B, in_channels, H, W) to (B, num_classes).

    Any H and W of at least 4 will do; 32x32 is what it was made for.

    >>> model = CifarResNet(BasicBlock, blocks_per_stage=3)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[PreActBottleneck],
        blocks_per_stage: int,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        # The size it was made for, where timm's networks say theirs.
        self.default_cfg = {"input_size": (in_channels, *IMAGE_SIZE)}
        preactivation = block is PreActBottleneck
        width1, width2, width3 = STAGE_WIDTHS
        channels = width3 * block.expansion

        # A pre-activation network leaves the stem bare and normalises after its last addition.
        conv = nn.Conv2d(in_channels, width1, 3, 1, 1, bias=False)
        self.stem = nn.Sequential(conv)
        self.final: nn.Module = nn.Identity()
        if preactivation:
            self.final = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        else:
            self.stem.extend([nn.BatchNorm2d(width1), nn.ReLU(inplace=True)])

        def stage(channels: int, width: int, stride: int) -> nn.Sequential:
            out_channels = width * block.expansion
            blocks = [block(channels, width, stride)]
            blocks += [block(out_channels, width, 1) for _ in range(blocks_per_stage - 1)]
            return nn.Sequential(*blocks)

        self.layer1 = stage(width1, width1, stride=1)
        self.layer2 = stage(width1 * block.expansion, width2, stride=2)
        self.layer3 = stage(width2 * block.expansion, width3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        x = self.avgpool(self.final(x))
        return self.fc(torch.flatten(x, 1))


_BASIC_DEPTHS = (20, 32, 56, 110)


def _build(
    depth: int, *, num_classes: int = 10, in_channels: int = 3, weights: None = None
) -> CifarResNet:
    if weights is not None:
        raise ConfigError(
            f"cifar_resnet{depth}(weights={weights!r}): there are no published weights for it. "
            "Build it without weights=, then load your own with load_state_dict."
        )
    if depth in _BASIC_DEPTHS:
        block: type[BasicBlock] | type[PreActBottleneck] = BasicBlock
        blocks_per_stage = (depth - 2) // 6
    else:
        block = PreActBottleneck
        blocks_per_stage = (depth - 2) // 9
    return CifarResNet(block, blocks_per_stage, num_classes=num_classes, in_channels=in_channels)


def _build_rla(depth: int, k: int, options: dict[str, Any]) -> nn.Module:
    # Not at the top: the registry must not need the whole library to be imported.
    from rlawrap.config import variant
    from rlawrap.splice import apply

    base_names = ("num_classes", "in_channels", "weights")
    base = _build(depth, **{name: options.pop(name) for name in base_names if name in options})
    return apply(base, config=variant("rla", k=k, **options))


@register_model("cifar_resnet20")
def cifar_resnet20(**kwargs: Any) -> CifarResNet:
    """ResNet-20 for 32x32 images: 9 basic blocks. Takes num_classes=10, in_channels=3."""
    return _build(20, **kwargs)


@register_model("cifar_resnet32")
def cifar_resnet32(**kwargs: Any) -> CifarResNet:
    """ResNet-32 for 32x32 images: 15 basic blocks. Takes num_classes=10, in_channels=3."""
    return _build(32, **kwargs)


@register_model("cifar_resnet56")
def cifar_resnet56(**kwargs: Any) -> CifarResNet:
    """ResNet-56 for 32x32 images: 27 basic blocks. Takes num_classes=10, in_channels=3."""
    return _build(56, **kwargs)


@register_model("cifar_resnet110")
def cifar_resnet110(**kwargs: Any) -> CifarResNet:
    """ResNet-110 for 32x32 images: 54 basic blocks. Takes num_classes=10, in_channels=3."""
    return _build(110, **kwargs)


@register_model("cifar_resnet164")
def cifar_resnet164(**kwargs: Any) -> CifarResNet:
    """ResNet-164 for 32x32 images: 54 pre-activation blocks; num_classes=10, in_channels=3."""
    return _build(164, **kwargs)


@register_model("rla_cifar_resnet20")
def rla_cifar_resnet20(*, k: int = 8, **kwargs: Any) -> nn.Module:
    """`cifar_resnet20` with a hidden state of k channels; also takes fields of `RLAConfig`."""
    return _build_rla(20, k, kwargs)


@register_model("rla_cifar_resnet32")
def rla_cifar_resnet32(*, k: int = 8, **kwargs: Any) -> nn.Module:
    """`cifar_resnet32` with a hidden state of k channels; also takes fields of `RLAConfig`."""
    return _build_rla(32, k, kwargs)


@register_model("rla_cifar_resnet56")
def rla_cifar_resnet56(*, k: int = 8, **kwargs: Any) -> nn.Module:
    """`cifar_resnet56` with a hidden state of k channels; also takes fields of `RLAConfig`."""
    return _build_rla(56, k, kwargs)


@register_model("rla_cifar_resnet110")
def rla_cifar_resnet110(*, k: int = 8, **kwargs: Any) -> nn.Module:
    """`cifar_resnet110` with a hidden state of k channels; also takes fields of `RLAConfig`."""
    return _build_rla(110, k, kwargs)


@register_model("rla_cifar_resnet164")
def rla_cifar_resnet164(*, k: int = 8, **kwargs: Any) -> nn.Module:
    """`cifar_resnet164` with a hidden state of k channels; also takes fields of `RLAConfig`."""
    return _build_rla(164, k, kwargs)
