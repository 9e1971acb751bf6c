"""Detectors and segmenters of torchvision on networks with a hidden state.

By name, `rlawrap.detection.fasterrcnn_rla_resnet50_fpn(num_classes=21)`, or around any rewritten
network, `rlawrap.detection.detector("retinanet", rlawrap.apply(net))`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rlawrap.detection.detectors import DETECTORS, detector
from rlawrap.detection.names import builder, list_detectors
from rlawrap.detection.pyramid import Pyramid, pyramid
from rlawrap.detection.segmenters import SEGMENTERS, segmenter
from rlawrap.detection.weights import load_backbone

__all__ = [
    "DETECTORS",
    "SEGMENTERS",
    "Pyramid",
    "detector",
    "list_detectors",
    "load_backbone",
    "pyramid",
    "segmenter",
]


def __getattr__(name: str) -> Callable[..., nn.Module]:
    found = builder(name)
    if found is None:
        raise AttributeError(f"module 'rlawrap.detection' has no attribute {name!r}")
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, *list_detectors()])
