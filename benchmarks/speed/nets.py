"""The networks that are measured: a plain one of torchvision and its form with a hidden state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import nn

import rlawrap


@dataclass(frozen=True, kw_only=True)
class Net:
    """name: torchvision's. preset: a network of rlawrap; None where `apply` makes it."""

    name: str
    title: str
    preset: str | None = None

    def base(self) -> nn.Module:
        """The plain network, with random weights."""
        return torchvision.models.get_model(self.name, weights=None)

    def ours(self, k: int) -> nn.Module:
        """The network with a hidden state of k channels, with random weights."""
        if self.preset is None:
            return rlawrap.apply(self.base(), k=k, init="paper")
        return rlawrap.models.get_model(self.preset, k=k)


NETS = {
    net.name: net
    for net in (
        Net(name="resnet50", title="ResNet-50", preset="rla_resnet50"),
        Net(name="resnet101", title="ResNet-101", preset="rla_resnet101"),
        Net(name="mobilenet_v2", title="MobileNetV2", preset="dsrla_mobilenetv2"),
        Net(name="convnext_tiny", title="ConvNeXt-T"),
        Net(name="efficientnet_b0", title="EfficientNet-B0"),
    )
}


def macs_ratio(net: Net, k: int, size: int) -> float:
    """Multiply-accumulates of the network with h over those of the plain one."""
    counted = rlawrap.cost(net.ours(k), size=size)
    return counted.total.macs / counted.base.macs


@torch.no_grad()
def stirred(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network whose norms and zero weights are random, so that equality means something."""
    torch.manual_seed(seed)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.7, 1.3)
            module.weight.uniform_(0.3, 0.7)
            module.bias.normal_(0, 0.1)
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            parameter.normal_(0, 0.02)
    return model
