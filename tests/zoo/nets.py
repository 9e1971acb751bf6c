"""Every convolutional architecture of timm and torchvision, built one at a time without weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import nn
from torchvision.models import get_model, list_models
from torchvision.models.detection import backbone_utils

from tests.nets import without_init
from tests.zoo.truth import TIMM, Family, torchvision_family


@dataclass(frozen=True)
class Net:
    """One architecture: `library/family/name` and how to build it."""

    name: str
    label: str
    family: Family
    builder: Callable[[], nn.Module]

    def build(self) -> nn.Module:
        """The network with random weights and uneven norm statistics, the same every time."""
        with without_init():  # `fill` writes every weight
            model = self.builder()
        fill(model, seed=zlib.crc32(self.name.encode()))
        return model


@torch.no_grad()
def fill(model: nn.Module, seed: int) -> None:
    """Random weights of plain scale, and norm statistics that no identity could hide behind."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.uniform_(low, high, generator=generator)

    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        if parameter.dim() >= 2 and parameter.numel() > parameter.shape[0] > 1:
            fan_in = parameter.numel() // parameter.shape[0]
            parameter.normal_(0, fan_in**-0.5, generator=generator)
        elif name.endswith(("bias", "beta", "mean")):
            uniform(parameter, -0.2, 0.2)
        else:
            uniform(parameter, 0.5, 1.2)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            uniform(buffer, -0.2, 0.2)
        elif name.endswith("running_var"):
            uniform(buffer, 0.5, 1.5)


def timm_nets() -> list[Net]:
    """One net for every timm architecture of a family that convolves."""
    import timm
    from timm.models import is_model_in_modules

    return [
        Net(f"timm/{module}/{name}", f"timm {module}", family, lambda n=name: timm.create_model(n))  # type: ignore[misc]
        for module, family in TIMM.items()
        for name in timm.list_models()
        if is_model_in_modules(name, [module])
    ]


def torchvision_nets() -> list[Net]:
    """Classifiers with and without auxiliary heads, video and segmentation nets, backbones."""
    nets: list[Net] = []

    def add(name: str, builder: Callable[[], nn.Module], prefix: str = "") -> None:
        try:
            family = torchvision_family(prefix + name)
        except KeyError:  # a transformer
            return
        kind = prefix.rstrip("/") or "classification"
        nets.append(Net(f"torchvision/{prefix}{name}", f"torchvision {kind}", family, builder))

    for name in list_models(module=torchvision.models):
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        add(name, lambda n=name, e=extra: get_model(n, weights=None, **e))  # type: ignore[misc]
        if extra:
            without = {**extra, "aux_logits": False}
            add(f"{name}_without_aux", lambda n=name, e=without: get_model(n, weights=None, **e))  # type: ignore[misc]
    for name in list_models(module=torchvision.models.video):
        add(name, lambda n=name: get_model(n, weights=None), "video/")  # type: ignore[misc]
    for name in list_models(module=torchvision.models.segmentation):
        none = {"weights": None, "weights_backbone": None}
        add(name, lambda n=name, e=none: get_model(n, **e), "segmentation/")  # type: ignore[misc]
        if not name.startswith("lraspp"):
            aux = {**none, "aux_loss": True}
            add(f"{name}_with_aux", lambda n=name, e=aux: get_model(n, **e), "segmentation/")  # type: ignore[misc]
    for name in ("resnet18", "resnet50"):
        add(
            f"{name}_fpn",
            lambda n=name: backbone_utils.resnet_fpn_backbone(backbone_name=n, weights=None),  # type: ignore[misc]
            "backbone/",
        )
    for name in ("mobilenet_v2", "mobilenet_v3_large"):
        add(
            f"{name}_fpn",
            lambda n=name: backbone_utils.mobilenet_backbone(  # type: ignore[misc]
                backbone_name=n, weights=None, fpn=True
            ),
            "backbone/",
        )
    return nets


def all_nets() -> list[Net]:
    """Everything `make zoo` sweeps."""
    return [*torchvision_nets(), *timm_nets()]
