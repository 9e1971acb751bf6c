"""Networks for the tests: the families by name, small custom ones, and norms made uneven."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d, GoogLeNetOutputs, Inception, InceptionAux


class Double(nn.Module):
    """Two convolutions, as a U-Net has them: no shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.b = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.b(torch.relu(self.a(x))))


class Residual(nn.Module):
    """A residual block with in-place addition and activation, as the official code writes it."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.project = None
        if stride != 1 or inputs != outputs:
            self.project = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.project is None else self.project(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += short
        return self.relu(y)


class Small(nn.Module):
    """A stem, a body of the test's own modules, and a classifier."""

    def __init__(self, *body: nn.Module, width: int = 8, last: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*body)
        self.fc = nn.Linear(last, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


class Dropping(nn.Module):
    """A residual block that drops its branch by hand: train mode multiplies and subtracts more."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.relu(self.conv1(x)))
        if self.training:
            keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.9)
            y = y * keep
        y = y * 0.5
        y = y - y.mean((2, 3), keepdim=True)
        return x + y


class BlockNet(nn.Module):
    """A custom network of block modules."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(
            Residual(width, width), Residual(width, 2 * width, 2), Residual(2 * width, 2 * width)
        )
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        return self.fc(self.drop(F.adaptive_avg_pool2d(x, 1).flatten(1)))


class FunctionalNet(nn.Module):
    """A network whose forward is functional throughout: no block has a module of its own."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        shapes = [(width, 3, 3, 3)] + [(width, width, 3, 3)] * 4
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(s) * 0.1) for s in shapes)
        self.classify = nn.Parameter(torch.randn(classes, width) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.weights[0], padding=1))
        y = F.relu(F.conv2d(x, self.weights[1], padding=1))
        x = F.relu(x + F.conv2d(y, self.weights[2], padding=1))
        y = F.relu(F.conv2d(x, self.weights[3], padding=1))
        x = F.relu(x + F.conv2d(y, self.weights[4], padding=1))
        x = F.dropout(x, 0.2, training=self.training)
        return F.linear(x.mean((2, 3)), self.classify)


class LoopStage(nn.Module):
    """A stage whose forward loops over lists of layers."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + F.relu(norm(conv(x)))
        return x


class LoopNet(nn.Module):
    """A network of two looping stages."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.stage1 = LoopStage(width, 3)
        self.down = nn.Conv2d(width, 2 * width, 2, 2)
        self.stage2 = LoopStage(2 * width, 2)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.down(self.stage1(self.stem(x))))
        return self.fc(x.mean((-2, -1)))


class WaveNet1d(nn.Module):
    """A residual network over signals."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, width, 7, 2, 3)
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=2**i, dilation=2**i) for i in range(3)
        )
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for conv in self.convs:
            x = x + torch.tanh(conv(x))
        return self.fc(x.mean(-1))


@contextmanager
def without_init() -> Iterator[None]:
    """Networks built here have no values: random numbers for millions of weights take a while.

    For those whose weights are all written afterwards, or of which only the shapes are looked at.
    """
    names = [n for n in dir(nn.init) if n.endswith("_") and not n.startswith("_")]
    saved = {name: getattr(nn.init, name) for name in names}

    def keep(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tensor

    try:
        for name in names:
            setattr(nn.init, name, keep)
        yield
    finally:
        for name, function in saved.items():
            setattr(nn.init, name, function)


def uneven(net: nn.Module, seed: int = 1) -> nn.Module:
    """Give every norm random statistics and scales, so that no branch is silent by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            mean = getattr(module, "running_mean", None)
            if isinstance(mean, Tensor):
                mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore
            if isinstance(getattr(module, "layer_scale", None), nn.Parameter):
                module.layer_scale.uniform_(0.5, 1.5, generator=generator)  # type: ignore
            if isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)):
                if module.weight is not None:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                if getattr(module, "bias", None) is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
    return net


def random_rla(model: nn.Module, scale: float = 0.1, seed: int = 2) -> nn.Module:
    """Give the layers of the hidden state random weights, so that it is really used."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("rla."):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def relative(a: Tensor, b: Tensor) -> float:
    """|a - b| / |a|."""
    return float((a - b).detach().norm() / a.detach().norm())


class TwoHeads(nn.Module):
    """GoogLeNet in small: blocks that concatenate, pools that round up, an auxiliary head."""

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            BasicConv2d(3, 16, kernel_size=3, stride=2, padding=1),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
        )
        self.a = Inception(16, 4, 4, 8, 2, 4, 4)
        self.b = Inception(20, 4, 4, 8, 2, 4, 4)
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.c = Inception(20, 8, 8, 16, 4, 8, 8)
        self.aux = InceptionAux(20, classes)
        self.fc = nn.Linear(40, classes)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        x = self.b(self.a(self.stem(x)))
        aux = self.aux(x) if self.training else None
        x = self.fc(F.adaptive_avg_pool2d(self.c(self.pool(x)), 1).flatten(1))
        return GoogLeNetOutputs(x, aux, aux) if self.training else x


def _small_mobilenet() -> nn.Module:
    rows = [[1, 8, 1, 1], [6, 16, 2, 2], [6, 24, 2, 2]]
    return torchvision.models.MobileNetV2(num_classes=7, inverted_residual_setting=rows)


def _vgg11_bn() -> nn.Module:
    """VGG with a classifier that is not most of the network."""
    with without_init():
        net = torchvision.models.vgg11_bn(weights=None)
    for module in net.features:
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.reset_parameters()
    net.classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 7)
    )
    return net


def _torchvision(name: str, **kwargs: object) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None, num_classes=7, **kwargs)


#: name -> (builder, input shape, expected number of blocks in each stage)
FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[int]]] = {
    "resnet18": (_torchvision("resnet18"), (2, 3, 64, 64), [2, 2, 2, 2]),
    "resnet50": (_torchvision("resnet50"), (2, 3, 64, 64), [3, 4, 6, 3]),
    "resnext50": (_torchvision("resnext50_32x4d"), (2, 3, 64, 64), [3, 4, 6, 3]),
    "wide_resnet50": (_torchvision("wide_resnet50_2"), (2, 3, 32, 32), [3, 4, 6, 3]),
    "mobilenet_v2": (_torchvision("mobilenet_v2"), (2, 3, 64, 64), [1, 2, 3, 7, 4]),
    "efficientnet_b0": (_torchvision("efficientnet_b0"), (2, 3, 64, 64), [1, 2, 2, 6, 5]),
    "vgg11_bn": (_vgg11_bn, (2, 3, 32, 32), [1, 1, 2, 2, 2]),
    "convnext_tiny": (_torchvision("convnext_tiny"), (2, 3, 64, 64), [3, 3, 9, 3]),
    "googlenet": (_torchvision("googlenet", init_weights=False), (2, 3, 96, 96), [2, 5, 2]),
    "r3d_18": (_torchvision("r3d_18"), (2, 3, 4, 32, 32), [2, 2, 2, 2]),
    "small_mobilenet": (_small_mobilenet, (2, 3, 64, 64), [1, 2, 2]),
    "small_googlenet": (TwoHeads, (2, 3, 64, 64), [2, 1]),
    "block_net": (BlockNet, (2, 3, 32, 32), [1, 2]),
    "functional_net": (FunctionalNet, (2, 3, 32, 32), [2]),
    "loop_net": (LoopNet, (2, 3, 32, 32), [3, 2]),
    "wave_net_1d": (WaveNet1d, (2, 2, 256), [3]),
}


def family(name: str) -> tuple[nn.Module, Tensor]:
    """A network of a family with uneven norms, and an input for it."""
    build, shape, _ = FAMILIES[name]
    torch.manual_seed(0)
    return uneven(build()), torch.randn(shape)
