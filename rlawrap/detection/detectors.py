"""torchvision's detectors around a rewritten network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelP6P7

from rlawrap.detection.pyramid import Pyramid, coarse_maps
from rlawrap.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Detector:
    """How a detector is put around a pyramid. finest: the least stride of the maps it reads."""

    cls: type[nn.Module]
    #: Puts into the options what torchvision would make for a ResNet-50.
    defaults: Callable[[type[nn.Module], Pyramid, dict[str, Any]], None]
    finest: int
    #: Classes of COCO as torchvision counts them, the background included.
    num_classes: int = 91


def _two_stages(cls: type[nn.Module], body: Pyramid, options: dict[str, Any]) -> None:
    """What a detector of two stages takes by default for the maps of a pyramid."""
    options.setdefault("rpn_anchor_generator", _region_anchors(body))
    levels = [str(i) for i in range(len(body.strides))]
    options.setdefault("box_roi_pool", MultiScaleRoIAlign(levels, 7, 2))
    if cls is detection.MaskRCNN:
        options.setdefault("mask_roi_pool", MultiScaleRoIAlign(levels, 14, 2))
    if cls is detection.KeypointRCNN:
        options.setdefault("keypoint_roi_pool", MultiScaleRoIAlign(levels, 14, 2))


def _one_stage(cls: type[nn.Module], body: Pyramid, options: dict[str, Any]) -> None:
    options.setdefault("anchor_generator", _dense_anchors(body))


#: The detectors by the first part of their name.
DETECTORS: Mapping[str, Detector] = {
    "fasterrcnn": Detector(cls=detection.FasterRCNN, defaults=_two_stages, finest=4),
    "maskrcnn": Detector(cls=detection.MaskRCNN, defaults=_two_stages, finest=4),
    "keypointrcnn": Detector(
        cls=detection.KeypointRCNN, defaults=_two_stages, finest=4, num_classes=2
    ),
    "retinanet": Detector(cls=detection.RetinaNet, defaults=_one_stage, finest=8),
}


def detector(
    kind: str,
    model: nn.Module,
    *,
    num_classes: int | None = None,
    trainable_layers: int | None = None,
    norm_eval: bool = False,
    out_channels: int = 256,
    extra_blocks: ExtraFPNBlock | None = None,
    **options: Any,
) -> nn.Module:
    """A detector of torchvision on the feature maps of a rewritten network.

    kind: "fasterrcnn", "maskrcnn", "keypointrcnn" or "retinanet". num_classes counts the background
    too, as in torchvision; 91 by default (2 for keypoints). trainable_layers, norm_eval: as in
    `rlawrap.detection.pyramid`. The region proposals read maps of stride 4 and more and one halved
    once more; RetinaNet reads those of stride 8 and more and two that are made of the network's
    last map, as the official configurations do. Anchors follow the strides. `options` go to
    torchvision's class (`min_size`, `box_detections_per_img`, …).

    Raises `ConfigError` for an unknown kind or option, `PlanError` for a network without stages of
    such strides.

    >>> import rlawrap, torch, torchvision
    >>> net = rlawrap.apply(torchvision.models.resnet18(), k=4)
    >>> model = detector("fasterrcnn", net, num_classes=3, min_size=64, max_size=64).eval()
    >>> sorted(model([torch.rand(3, 64, 64)])[0])
    ['boxes', 'labels', 'scores']
    """
    if kind not in DETECTORS:
        raise ConfigError(
            f"detector({kind!r}): no such detector; choose one of {', '.join(DETECTORS)}."
        )
    spec = DETECTORS[kind]
    _check_options(kind, spec.cls, options)
    maps = coarse_maps(
        model, finest=spec.finest, trainable_layers=trainable_layers, norm_eval=norm_eval
    )
    if kind == "retinanet" and extra_blocks is None:
        extra_blocks = LastLevelP6P7(maps.rla.feature_info.channels()[-1], out_channels)
    body = Pyramid(maps, out_channels, extra_blocks)
    spec.defaults(spec.cls, body, options)
    try:
        return spec.cls(body, spec.num_classes if num_classes is None else num_classes, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"detector({kind!r}): torchvision refuses the options: {error}."
        ) from error


def _check_options(kind: str, cls: type[nn.Module], options: Mapping[str, Any]) -> None:
    """torchvision's classes pass over what they do not know."""
    known = inspect.signature(cls.__init__).parameters
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"detector({kind!r}): {cls.__name__} takes no {name!r}.{hint}")


def _levels(body: Pyramid) -> list[int]:
    """The strides of all maps that the pyramid gives: those behind the network's halve further."""
    extra = 2 if isinstance(body.fpn.extra_blocks, LastLevelP6P7) else 1
    last = body.strides[-1]
    return [*body.strides, *(last * 2 ** (i + 1) for i in range(extra))]


def _region_anchors(body: Pyramid) -> AnchorGenerator:
    """One size a level, eight times its stride, in three shapes: torchvision's for ResNets."""
    sizes = tuple((8 * stride,) for stride in _levels(body))
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))


def _dense_anchors(body: Pyramid) -> AnchorGenerator:
    """Three sizes a level, from four times its stride on, in three shapes: RetinaNet's."""
    sides = [4 * stride for stride in _levels(body)]
    sizes = tuple((s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in sides)
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
