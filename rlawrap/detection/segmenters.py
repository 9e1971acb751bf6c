"""torchvision's segmentation heads on a rewritten network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torchvision.models.segmentation import DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCN, FCNHead

from rlawrap.errors import ConfigError
from rlawrap.splice import backbone
from rlawrap.splice.access import checked

#: The segmenters by the first part of their name: the class, and the head on the last map.
SEGMENTERS: Mapping[str, tuple[Callable[..., nn.Module], Callable[[int, int], nn.Module]]] = {
    "fcn": (FCN, FCNHead),
    "deeplabv3": (DeepLabV3, DeepLabHead),
}


def segmenter(
    kind: str,
    model: nn.Module,
    *,
    num_classes: int = 21,
    aux_loss: bool = False,
    frozen_stages: int = -1,
    norm_eval: bool = False,
) -> nn.Module:
    """FCN or DeepLabV3 of torchvision on the last map of a rewritten network.

    kind: "fcn" or "deeplabv3". aux_loss: a second head on the map of the stage before. The map is
    as coarse as the network makes it: `rlawrap.models.rla_resnet50(output_stride=8)` is
    dilated as torchvision's. frozen_stages, norm_eval: as in `rlawrap.backbone`. The output is a
    dict of "out" (N, num_classes, H, W) and "aux".

    Raises `ConfigError` for an unknown kind, and for `aux_loss` on a network of one stage.

    >>> import rlawrap, torch, torchvision
    >>> net = rlawrap.apply(torchvision.models.resnet18(), k=4)
    >>> segmenter("fcn", net, num_classes=3).eval()(torch.rand(1, 3, 64, 64))["out"].shape
    torch.Size([1, 3, 64, 64])
    """
    if kind not in SEGMENTERS:
        raise ConfigError(
            f"segmenter({kind!r}): no such segmenter; choose one of {', '.join(SEGMENTERS)}."
        )
    cls, head = SEGMENTERS[kind]
    plan = checked(model, "backbone(model)").rla.plan
    stages = [stage.blocks[-1].path for stage in plan.stages]
    if aux_loss and len(stages) < 2:
        raise ConfigError(f"segmenter({kind!r}, aux_loss=True): the network has one stage only.")
    layers = {stages[-1]: "out", **({stages[-2]: "aux"} if aux_loss else {})}
    body: Any = backbone(model, layers, frozen_stages=frozen_stages, norm_eval=norm_eval)
    channels = body.rla.feature_info.channels()
    aux = FCNHead(channels[1], num_classes) if aux_loss else None
    return cls(body, head(channels[0], num_classes), aux)
