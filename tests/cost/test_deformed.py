"""Deformable convolutions count as ordinary ones of the same weight and output."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torchvision import ops

import rlawrap
from rlawrap.cost import Count, cost
from rlawrap.cost.operations import counted, counter


class Deformed(nn.Module):
    """A deformable convolution, by its layer or by its function, with or without a mask."""

    def __init__(self, conv: ops.DeformConv2d, *, functional: bool, masked: bool) -> None:
        super().__init__()
        self.conv, self.functional, self.masked = conv, functional, masked

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        rows, columns = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                x.shape[2:],
                conv.padding,
                conv.dilation,
                conv.kernel_size,
                conv.stride,
                strict=True,
            )
        )
        taps = conv.kernel_size[0] * conv.kernel_size[1]
        offset = x.new_zeros(x.shape[0], 2 * taps, rows, columns)
        mask = x.new_ones(x.shape[0], taps, rows, columns) if self.masked else None
        if not self.functional:
            return conv(x, offset, mask)
        return ops.deform_conv2d(
            x,
            offset,
            conv.weight,
            conv.bias,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            mask=mask,
        )


LAYOUTS = {
    "plain": {"kernel_size": 3, "padding": 1, "bias": False},
    "strided": {"kernel_size": (3, 1), "stride": (2, 1), "padding": (1, 0)},
    "grouped": {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2},
}


@pytest.mark.parametrize("masked", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("functional", [False, True], ids=["layer", "function"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_as_an_ordinary_one(layout: str, functional: bool, masked: bool) -> None:
    options = LAYOUTS[layout]
    ordinary = cost(nn.Sequential(nn.Conv2d(4, 6, **options)), size=(7, 5)).total  # type: ignore[arg-type]
    net = Deformed(ops.DeformConv2d(4, 6, **options), functional=functional, masked=masked)
    total = cost(nn.Sequential(net), example_input=torch.zeros(1, 4, 7, 5)).total
    assert total == ordinary
    assert total.macs == 6 * 5 * (4 if layout == "strided" else 7) * net.conv.weight[0].numel()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(8, 18, 3, padding=1, bias=False)
        self.conv = ops.DeformConv2d(8, 8, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.conv(x, self.offset(x)))


def test_in_the_stage_of_its_block() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        *(Block() for _ in range(3)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5, bias=False),
    )
    counted = cost(rlawrap.apply(net, k=4), size=32)
    pixels = 32 * 32
    weights = 3 * 9 * 8 * (18 + 8)
    base = {part.name: part.base for part in counted.parts}
    assert base["stage 0"] == Count(params=weights, macs=weights * pixels)
    assert base["stem"].macs == 3 * 8 * 9 * pixels
    assert base["head"].macs == 40


def test_costs_do_without_torchvision() -> None:
    code = (
        "import sys, torch, rlawrap; from torch import nn;"
        "net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False));"
        "print(rlawrap.cost(net, size=8).total.macs, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(3 * 4 * 64), "False"]


def test_they_are_convolutions_and_no_products_of_matrices() -> None:
    net = Deformed(ops.DeformConv2d(4, 6, 3, padding=1), functional=False, masked=False)
    with counter() as made:
        net(torch.randn(1, 4, 8, 8))
    found = counted(made)
    assert (found.conv_macs, found.matmul_macs) == (6 * 4 * 9 * 64, 0)
