"""The official models by their official names: a base network, attention, a named `RLAConfig`.

As released: the ResNet files add the shortcut to the residual branch in place, so their hidden
state is updated from the block's output; `source="branch"` gives what the paper draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from rlawrap.design import names as hidden_names
from rlawrap.errors import ConfigError
from rlawrap.models.bases import build_base
from rlawrap.models.model_registry import register_model

if TYPE_CHECKING:
    from rlawrap.splice import RLAModel


Attention = Literal["eca", "se"] | None


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One official constructor as data."""

    name: str
    base: str
    #: What acts on the end of every residual branch.
    attention: Attention = None
    #: A key of `rlawrap.config.VARIANTS`; None for a network without hidden state.
    variant: str | None = None
    k: int = 32

    def describe(self) -> str:
        """The first line of the builder's docstring."""
        attention = f" with {self.attention.upper()}" if self.attention else ""
        if self.variant is None:
            return f"{self.base}{attention}; takes num_classes=1000, weights=None."
        return (
            f"{self.base}{attention} and the hidden state of variant {self.variant!r}, k = "
            f"{self.k}; takes k, num_classes=1000, weights=None and the fields of `RLAConfig`."
        )


_ATTENTION: tuple[tuple[Attention, str], ...] = ((None, ""), ("eca", "_eca"), ("se", "_se"))
_DEPTHS = ("resnet50", "resnet101", "resnet152")
_RESNEXTS = ("resnext50_32x4d", "resnext101_32x4d")
_VARIANT_NAMES = (
    *("rlav1_resnet50", "rlav1_resnet50_eca", "rlav2_resnet50", "rlav3_resnet50"),
    *("rlav4_resnet50", "rlav5_resnet50", "rlav6_resnet50", "rlav1p_resnet50"),
    *("rlaus_resnet50", "rlaus_resnet101", "rlarh_resnet50", "rlalstm_resnet50"),
    *("rlagru_resnet50", "rlagru_resnet50_eca", "rlagru_resnet101", "rlagru_resnet101_eca"),
)


def _presets() -> Iterator[Preset]:
    for base in (*_DEPTHS, *_RESNEXTS):
        for attention, suffix in _ATTENTION:
            yield Preset(name=base + suffix, base=base, attention=attention)
            # The official code has no SE form of the plain RLA-ResNets.
            if attention != "se" or base in _RESNEXTS:
                yield Preset(
                    name=f"rla_{base}{suffix}", base=base, attention=attention, variant="rla"
                )
    yield Preset(name="resnet50_k", base="resnet50_k")
    for name in _VARIANT_NAMES:
        variant, base, *eca = name.split("_")  # as in rlav1_resnet50_eca
        yield Preset(name=name, base=base, attention="eca" if eca else None, variant=variant)
    yield Preset(name="mobilenet_v2", base="mobilenet_v2")
    yield Preset(name="mobilenetv2_eca", base="mobilenet_v2", attention="eca")
    for variant in ("rla_mobilenetv2", "dsrla_mobilenetv2"):
        for attention, suffix in _ATTENTION[:2]:
            for k, size in ((32, ""), (6, "_k6"), (12, "_k12"), (24, "_k24"), (32, "_k32")):
                yield Preset(
                    name=variant + size + suffix,
                    base="mobilenet_v2",
                    attention=attention,
                    variant=variant,
                    k=k,
                )


#: Every official constructor by name.
PRESETS = {preset.name: preset for preset in _presets()}


def build_preset(
    preset: Preset,
    *,
    k: int | None = None,
    num_classes: int = 1000,
    weights: Any = None,
    output_stride: int = 32,
    **options: Any,
) -> nn.Module:
    """Build a preset. `weights` names torchvision weights of the base, and `output_stride` dilates
    its last stages (see `build_base`); their layers of h are those of the undilated network.

    Fresh networks start as the official ones do. With `weights` the default is `init="identity"`,
    so that the network computes what its base does until it is trained. `options` are fields of
    `RLAConfig`. Raises `ConfigError` for options the preset does not have.
    """
    from rlawrap.attention import attend
    from rlawrap.config import variant
    from rlawrap.splice import apply

    if preset.variant is None and (k is not None or options):
        asked = ", ".join([*([] if k is None else ["k"]), *options])
        raise ConfigError(
            f"{preset.name}: it has no hidden state and takes num_classes, weights and "
            f"output_stride, not {asked}."
        )
    base = build_base(
        preset.base, num_classes=num_classes, weights=weights, output_stride=output_stride
    )
    if preset.attention is not None:
        kernel = _mobilenet_kernel if preset.base == "mobilenet_v2" else None
        base = attend(base, preset.attention, kernel=kernel if preset.attention == "eca" else None)
    if preset.variant is None:
        return base
    if weights is not None:
        options.setdefault("init", "identity")
    config = variant(preset.variant, **{"k": preset.k if k is None else k, **options})
    # Dilated stages are of one resolution, but share no cell.
    stages = None if output_stride == 32 else [f"layer{i}" for i in range(1, 5)]
    model = apply(base, config=config, stages=stages)
    if weights is None and config.init == "paper":
        _initialise_jointly(model)
    return model


def _mobilenet_kernel(channels: int) -> int:
    """The kernel size of ECA in the official MobileNetV2."""
    return 1 if channels < 96 else 3


def _initialise_jointly(model: RLAModel) -> None:
    """Draw weights that the official code draws as parts of one larger weight.

    A classifier over C + k features starts within 1 / sqrt(C + k), and a depthwise convolution over
    C + k channels has the fan of them all; x's and h's shares are separate layers here.
    """
    for i, reference in enumerate(model.rla.plan.head):
        classifier, share = (
            model.get_submodule(reference),
            _find(model, f"{hidden_names.join(str(i))}.linear"),
        )
        if isinstance(classifier, nn.Linear) and isinstance(share, nn.Linear):
            bound = 1 / math.sqrt(classifier.in_features + share.in_features)
            for tensor in (classifier.weight, classifier.bias, share.weight):
                nn.init.uniform_(tensor, -bound, bound)
    for i, block in enumerate(model.rla.plan.blocks):
        share = _find(model, f"{hidden_names.inject(str(i))}.depthwise")
        if not isinstance(share, nn.Conv2d):
            continue
        layers = model.get_submodule(block.path).modules()
        beside = next(m for m in layers if isinstance(m, nn.Conv2d) and m.groups == m.in_channels)
        fan_out = (beside.out_channels + share.out_channels) * math.prod(share.kernel_size)
        for layer in (beside, share):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / fan_out))


def _find(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _builder(preset: Preset) -> Callable[..., nn.Module]:
    def build(**kwargs: Any) -> nn.Module:
        return build_preset(preset, **kwargs)

    build.__name__ = build.__qualname__ = preset.name
    build.__doc__ = preset.describe()
    return build


for _preset in PRESETS.values():
    register_model(_preset.name)(_builder(_preset))
