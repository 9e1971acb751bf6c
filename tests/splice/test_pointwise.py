"""1x1 convolutions by oneDNN: the same numbers, where it is asked and where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlawrap.splice import pointwise
from rlawrap.splice.pointwise import is_point_conv, point_conv, point_dilation

#: 8 * 32 * 56 * 56 values; with 32 output channels 25.7 million multiply-accumulates.
SHAPE = (8, 32, 56, 56)


def last(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def weight(outputs: int = 32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(outputs, 32, 1, 1)


@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 32)])
def test_the_same_numbers_and_gradients(bias: Tensor | None) -> None:
    x, w = last(*SHAPE).requires_grad_(), weight().requires_grad_()
    assert point_dilation(x, [w], learning=True) == 2
    ours, plain = point_conv(x, w, bias), F.conv2d(x, w, bias)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    towards = last(*plain.shape)
    pairs = zip(*(torch.autograd.grad(y, (x, w), towards) for y in (ours, plain)), strict=True)
    for found, expected in pairs:
        scale = float(expected.abs().max())
        assert float((found - expected).abs().max()) < 1e-5 * scale


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_it_is_asked_where_it_is_faster_alone() -> None:
    x, w = last(*SHAPE), weight()

    def dilation(x: Tensor, w: Tensor) -> int:
        return point_dilation(x, [w], learning=False)

    assert dilation(x, w) == 2
    assert dilation(x.contiguous(), w) == 1
    assert dilation(x.double(), w.double()) == 1
    assert dilation(x.bfloat16(), w.bfloat16()) == 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dilation(x, w) == 1
    with torch.backends.mkldnn.flags(enabled=False):
        assert dilation(x, w) == 1
    assert dilation(x.to("meta"), w.to("meta")) == 1
    seen = []
    torch.func.vmap(lambda v: seen.append(dilation(x, v)) or v)(w[None])
    assert seen == [1]


def test_a_backward_pass_lowers_what_is_large() -> None:
    x, w = last(8, 32, 28, 28), weight()  # 6.4 million multiply-accumulates
    assert point_dilation(x, [w], learning=False) == 1
    assert point_dilation(x, [w], learning=True) == 2
    assert point_dilation(x[:7], [w], learning=True) == 1
    assert point_dilation(x[:4], [w, w], learning=True) == 2


def test_few_pixels_of_many_channels_are_left() -> None:
    x, w = last(4, 2048, 13, 13), torch.zeros(64, 2048, 1, 1)
    assert point_dilation(x, [w], learning=True) == 1  # 676 pixels, 89 million
    assert point_dilation(torch.cat([x, x]), [w], learning=True) == 2


def test_a_convolution_learns_with_its_weight_or_what_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[bool] = []

    def dilation(x: Tensor, weights: list[Tensor], learning: bool) -> int:
        told.append(learning)
        return 1

    monkeypatch.setattr(pointwise, "point_dilation", dilation)
    x, w = last(1, 32, 2, 2), weight()
    point_conv(x, w)
    point_conv(x, w.requires_grad_())
    point_conv(x.requires_grad_(), w.detach())
    with torch.no_grad():
        point_conv(x, w)
    assert told == [False, True, True, False]


def test_compilers_see_a_plain_convolution() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, w: Tensor) -> Tensor:
            return point_conv(x, w)

    program = torch.export.export(Net(), (last(*SHAPE), weight()))
    (call,) = (n for n in program.graph.nodes if n.op == "call_function")
    assert call.target is torch.ops.aten.conv2d.default and len(call.args) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"bias": False}, True),
        ({"stride": 2}, False),
        ({"padding": 1}, False),
        ({"padding": "same"}, False),
        ({"dilation": 2}, False),
        ({"groups": 2}, False),
        ({"kernel_size": 3}, False),
    ],
)
def test_which_layers_are_meant(settings: dict[str, Any], expected: bool) -> None:
    assert is_point_conv(nn.Conv2d(4, 4, **{"kernel_size": 1, **settings})) is expected


def test_other_layers_are_not_meant() -> None:
    class Own(nn.Conv2d):
        pass

    assert not any(map(is_point_conv, (Own(4, 4, 1), nn.Conv1d(4, 4, 1), nn.ReLU(), None)))
    assert pointwise.LARGE > pointwise.LARGE_LEARNING
