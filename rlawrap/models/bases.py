"""ImageNet base networks of the presets: torchvision's ResNets, ResNeXts and MobileNetV2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

from torch import nn

from rlawrap.errors import CheckpointError, ConfigError


@dataclass(frozen=True, kw_only=True)
class ResNetBase:
    """A bottleneck ResNet: blocks a stage, groups and their width, and channels added to each."""

    blocks: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64
    #: Added to the planes of every stage (64, 128, 256, 512); a block puts out four times as many.
    more_planes: int = 0


BASES: Mapping[str, ResNetBase | None] = {
    "resnet50": ResNetBase(blocks=(3, 4, 6, 3)),
    "resnet101": ResNetBase(blocks=(3, 4, 23, 3)),
    "resnet152": ResNetBase(blocks=(3, 8, 36, 3)),
    "resnext50_32x4d": ResNetBase(blocks=(3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x4d": ResNetBase(blocks=(3, 4, 23, 3), groups=32, width_per_group=4),
    # The paper's control: k channels more in every block instead of a hidden state, k = 32.
    "resnet50_k": ResNetBase(blocks=(3, 4, 6, 3), more_planes=8),
    "mobilenet_v2": None,
}


def build_base(
    name: str, *, num_classes: int = 1000, weights: Any = None, output_stride: int = 32
) -> nn.Module:
    """A base network by name, with fresh weights or the torchvision weights of that name.

    Fresh weights follow the official code: Kaiming-normal by fan out, and a weight of zero in the
    last norm of every residual branch of a ResNet. `weights` is what torchvision takes for this
    network, such as "IMAGENET1K_V2"; with another `num_classes` than its own, the classifier stays
    fresh. `output_stride`: 8 or 16 for a ResNet whose last stages are dilated in the place of
    halving. Raises `ConfigError` for unknown weights and for a stride that cannot be had,
    `CheckpointError` if weights cannot be fetched.
    """
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise ConfigError(
            f"{name}(num_classes={num_classes!r}): give a whole number of at least 1."
        )
    found = _find_weights(name, weights)
    spec = BASES[name]
    able = (8, 16, 32) if spec is not None and not spec.more_planes else (32,)
    if output_stride not in able:
        raise ConfigError(
            f"{name}(output_stride={output_stride!r}): it can be {', '.join(map(str, able))}."
        )
    model = _mobilenet(num_classes) if spec is None else _resnet(spec, num_classes, output_stride)
    if found is not None:
        _load(model, name, found, num_classes)
    return model


def _mobilenet(num_classes: int) -> nn.Module:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(weights=None, num_classes=num_classes)


def _resnet(spec: ResNetBase, num_classes: int, output_stride: int) -> nn.Module:
    from torchvision.models.resnet import Bottleneck, ResNet

    model = ResNet(
        Bottleneck,
        list(spec.blocks),
        num_classes=num_classes,
        zero_init_residual=True,
        groups=spec.groups,
        width_per_group=spec.width_per_group,
        replace_stride_with_dilation=[output_stride < stride for stride in (8, 16, 32)],
    )
    if spec.more_planes:
        _widen(model, spec, num_classes)
    return model


def _widen(model: nn.Module, spec: ResNetBase, num_classes: int) -> None:
    """Build the stages of a ResNet again, each with more planes, and the classifier for them."""
    from torchvision.models.resnet import Bottleneck

    channels = 64
    for stage, count in enumerate(spec.blocks):
        planes = 64 * 2**stage + spec.more_planes
        out_channels = planes * Bottleneck.expansion
        stride = 1 if stage == 0 else 2
        shortcut = nn.Sequential(
            nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
        )
        blocks = [Bottleneck(channels, planes, stride, shortcut)]
        blocks += [Bottleneck(out_channels, planes) for _ in range(count - 1)]
        layer = nn.Sequential(*blocks)
        for module in layer.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
        model.add_module(f"layer{stage + 1}", layer)
        channels = out_channels
    model.add_module("fc", nn.Linear(channels, num_classes))


def _find_weights(name: str, weights: Any) -> Any:
    """A torchvision weights entry, or None."""
    if weights is None:
        return None
    import torchvision

    if name not in torchvision.models.list_models():
        raise ConfigError(f"{name}(weights={weights!r}): torchvision has no weights for it.")
    entries = torchvision.models.get_model_weights(name)
    try:
        return entries.verify(entries[weights] if isinstance(weights, str) else weights)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{name}(weights={weights!r}): choose one of {', '.join(e.name for e in entries)}, "
            "DEFAULT."
        ) from None


def _load(model: nn.Module, name: str, weights: Any, num_classes: int) -> None:
    try:
        state = dict(weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{name}(weights={weights}): cannot be fetched: {error}") from error
    if num_classes != len(weights.meta["categories"]):
        state = {k: v for k, v in state.items() if not k.startswith(("fc.", "classifier."))}
    model.load_state_dict(state, strict=len(state) == len(model.state_dict()))
