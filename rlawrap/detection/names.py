"""Detectors and segmenters by name: a kind, one of our networks, and `_fpn` for detectors."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from rlawrap.detection.detectors import DETECTORS, detector
from rlawrap.detection.segmenters import SEGMENTERS, segmenter
from rlawrap.detection.weights import load_backbone
from rlawrap.errors import ConfigError
from rlawrap.models import get_model
from rlawrap.models.presets import PRESETS

#: The networks that names are made of: the official ones with a hidden state.
_NETWORKS = tuple(name for name, preset in PRESETS.items() if preset.variant is not None)


def list_detectors(pattern: str = "*") -> list[str]:
    """Names of the detectors and segmenters that match a shell pattern, sorted.

    >>> list_detectors("*_rla_resnet101_eca*")[:3]
    ['deeplabv3_rla_resnet101_eca', 'fasterrcnn_rla_resnet101_eca_fpn', 'fcn_rla_resnet101_eca']
    """
    names = [f"{kind}_{net}_fpn" for kind in DETECTORS for net in _NETWORKS]
    names += [f"{kind}_{net}" for kind in SEGMENTERS for net in _NETWORKS if "mobilenet" not in net]
    return sorted(fnmatch.filter(names, pattern))


def builder(name: str) -> Callable[..., nn.Module] | None:
    """The function that builds the detector or segmenter of a name, or None."""
    kind, _, rest = name.partition("_")
    network = rest.removesuffix("_fpn")
    if network not in _NETWORKS or name not in list_detectors(f"{kind}_*"):
        return None
    if kind in DETECTORS:
        return _detector_builder(name, kind, network)
    return _segmenter_builder(name, kind, network)


def _detector_builder(name: str, kind: str, network: str) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int | None = None,
        weights_backbone: Any = None,
        trainable_layers: int | None = None,
        norm_eval: bool | None = None,
        k: int | None = None,
        **options: Any,
    ) -> nn.Module:
        base, rest = _network(network, weights_backbone, k)
        trained = weights_backbone is not None
        made = detector(
            kind,
            base,
            num_classes=num_classes,
            trainable_layers=3 if trained and trainable_layers is None else trainable_layers,
            norm_eval=trained if norm_eval is None else norm_eval,
            **options,
        )
        return _filled(made, rest)

    return _named(build, name, f"{kind} on {network}.{_DETECTOR}")


def _segmenter_builder(name: str, kind: str, network: str) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int = 21,
        weights_backbone: Any = None,
        k: int | None = None,
        output_stride: int = 8,
        **options: Any,
    ) -> nn.Module:
        base, rest = _network(network, weights_backbone, k, output_stride=output_stride)
        made = segmenter(kind, base, num_classes=num_classes, **options)
        return _filled(made, rest)

    return _named(build, name, f"{kind} on {network}.{_SEGMENTER}")


_WEIGHTS = """

    weights_backbone: weights of the classification network, those that torchvision has for its base
    ("DEFAULT"), or a checkpoint of ours or of the official code, its detectors too. What of
    it was not used is listed in `not_used` of the result.
"""
_DETECTOR = f"""{_WEIGHTS}
    With them three layers learn and norms keep their statistics, else all learns; trainable_layers
    and norm_eval say otherwise. num_classes, out_channels, …: as in `rlawrap.detection.detector`.
    """
_SEGMENTER = f"""{_WEIGHTS}
    output_stride: 8, 16 or 32; stages that would go beyond are dilated instead. num_classes,
    aux_loss, …: as in `rlawrap.detection.segmenter`.
    """


def _named(build: Callable[..., nn.Module], name: str, text: str) -> Callable[..., nn.Module]:
    build.__name__ = build.__qualname__ = name
    build.__doc__ = text
    return build


def _network(name: str, weights: Any, k: int | None, **options: Any) -> tuple[nn.Module, Any]:
    """The classification network, and weights that are still to be put into its backbone."""
    kept = isinstance(weights, (Mapping, os.PathLike)) or _is_file(weights)
    given = {} if k is None else {"k": k}
    if kept or weights is None:
        return get_model(name, **given, **options), weights
    return get_model(name, weights=weights, **given, **options), None


def _is_file(weights: Any) -> bool:
    if not isinstance(weights, str):
        return False
    path = Path(weights)
    if path.suffix and not path.is_file():
        raise ConfigError(f"weights_backbone={weights!r}: no such file.")
    return path.is_file()


def _filled(model: nn.Module, source: Any) -> nn.Module:
    model.not_used = [] if source is None else load_backbone(model, source)  # type: ignore[assignment]
    return model
