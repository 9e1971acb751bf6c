"""RLA networks in plain PyTorch as the paper draws them: each block convolves Concat[x, h].

Nothing of rlawrap runs in them, only its weights are taken over, so that both compute the same
function and their times can be compared. As in `rla_resnet50` h is updated from the block's output
x^t; in `dsrla_mobilenetv2` from the branch y^t, and x and h meet before the depthwise convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Blocks, planes and first stride of each stage.
RESNET_STAGES = {
    "resnet50": ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)),
    "resnet101": ((3, 64, 1), (4, 128, 2), (23, 256, 2), (3, 512, 2)),
}
#: Expansion, channels, blocks and first stride of each row.
MOBILENET_ROWS = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


class Recurrence(nn.Module):
    """h^t = Conv3x3(tanh(BN_t(Conv1x1(y^t) + h^{t-1}))), the convolutions shared by the caller."""

    def __init__(self, reduce: nn.Conv2d, spread: nn.Conv2d) -> None:
        super().__init__()
        self.reduce, self.spread = reduce, spread
        self.norm = nn.BatchNorm2d(spread.in_channels)

    def forward(self, y: Tensor, h: Tensor) -> Tensor:
        return self.spread(torch.tanh(self.norm(self.reduce(y) + h)))


class Bottleneck(nn.Module):
    """A residual block whose first convolution is k channels wider."""

    def __init__(self, channels: int, planes: int, k: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels + k, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            None
            if stride == 1 and channels == 4 * planes
            else nn.Sequential(
                nn.Conv2d(channels, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
            )
        )

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(torch.cat([x, h], 1))))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class RLAResNet(nn.Module):
    """(N, 3, H, W) -> (N, classes); H and W multiples of 32."""

    def __init__(self, name: str, k: int, classes: int = 1000) -> None:
        super().__init__()
        self.k = k
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        self.blocks, self.updates = nn.ModuleList(), nn.ModuleList()
        for count, planes, first in RESNET_STAGES[name]:
            reduce = nn.Conv2d(4 * planes, k, 1, bias=False)
            spread = nn.Conv2d(k, k, 3, padding=1, bias=False)
            for index in range(count):
                stride = first if index == 0 else 1
                self.blocks.append(Bottleneck(channels, planes, k, stride))
                self.updates.append(Recurrence(reduce, spread))
                channels = 4 * planes
        self.norm = nn.BatchNorm2d(k)
        self.fc = nn.Linear(channels + k, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        h = x.new_zeros(len(x), self.k, *x.shape[2:])
        for block, update in zip(self.blocks, self.updates, strict=True):
            x = block(x, h)
            if block.stride == 2:
                h = F.avg_pool2d(h, 2)
            h = update(x, h)
        x = torch.cat([x, F.relu(self.norm(h))], 1)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class InvertedResidual(nn.Module):
    """A MobileNetV2 block whose depthwise convolution and projection are k channels wider."""

    def __init__(self, channels: int, out: int, k: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.stride, self.residual = stride, stride == 1 and channels == out
        self.expand = (
            nn.Identity()
            if expansion == 1
            else nn.Sequential(
                nn.Conv2d(channels, hidden, 1, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU6(inplace=True),
            )
        )
        wide = hidden + k
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.bn = nn.BatchNorm2d(wide)
        self.act = nn.ReLU6(inplace=True)
        self.project = nn.Conv2d(wide, out, 1, bias=False)
        self.project_bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x^t and the branch y^t."""
        y = torch.cat([self.expand(x), h], 1)
        y = self.project_bn(self.project(self.act(self.bn(self.depthwise(y)))))
        return (x + y if self.residual else y), y


class RLAMobileNetV2(nn.Module):
    """(N, 3, H, W) -> (N, classes); one depthwise recurrent convolution for all blocks."""

    def __init__(self, k: int, classes: int = 1000) -> None:
        super().__init__()
        self.k = k
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(inplace=True)
        )
        spread = nn.Conv2d(k, k, 3, padding=1, groups=k, bias=False)
        channels = 32
        self.blocks, self.updates = nn.ModuleList(), nn.ModuleList()
        for expansion, out, count, first in MOBILENET_ROWS:
            reduce = nn.Conv2d(out, k, 1, bias=False)
            for index in range(count):
                stride = first if index == 0 else 1
                self.blocks.append(InvertedResidual(channels, out, k, stride, expansion))
                self.updates.append(Recurrence(reduce, spread))
                channels = out
        self.norm = nn.BatchNorm2d(k)
        self.last = nn.Sequential(
            nn.Conv2d(channels + k, 1280, 1, bias=False),
            nn.BatchNorm2d(1280),
            nn.ReLU6(inplace=True),
        )
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h = x.new_zeros(len(x), self.k, *x.shape[2:])
        for block, update in zip(self.blocks, self.updates, strict=True):
            x, y = block(x, h)
            if block.stride == 2:
                h = F.avg_pool2d(h, 2)
            h = update(y, h)
        x = self.last(torch.cat([x, F.relu6(self.norm(h))], 1))
        return self.fc(self.dropout(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)))
