"""Which layers a hidden state has of its own, on its way to a layer of the network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlawrap.design.paths import PathMaker, meeting_point
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References
from rlawrap.flow.traced import trace_model


class Gated(nn.Module):
    """A depthwise convolution, a gate whose first operand is pooled, then a dense convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm0, self.act0 = nn.BatchNorm2d(8), nn.ReLU()
        self.depthwise = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
        self.norm, self.act, self.gate = nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 1)
        self.dense = nn.Conv2d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.depthwise(self.act0(self.norm0(F.relu(x))))))
        gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.dense(gate * x)


def gated() -> tuple[Flow, References]:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), Gated())
    flow = trace_model(net, example_input=torch.zeros(2, 3, 16, 16)).flow
    return flow, References(flow.trace)


def test_past_a_gate_h_goes_where_the_image_goes() -> None:
    flow, refs = gated()
    path = PathMaker(flow, 4, "batch").entry(
        refs.node("1.depthwise"), refs.node("0"), refs.node("1"), False
    )
    assert path.problem == ""
    assert refs.name(path.target) == "1.dense"
    assert [name for name, _ in path.layers] == [
        "act", "norm", "act", "depthwise", "norm", "act", "conv",
    ]  # fmt: skip
    out = path.build()(torch.zeros(2, 4, 16, 16))
    assert out.shape == (2, 16, 8, 8)


def test_what_lies_before_a_layer_ends_at_the_stop_or_where_paths_meet() -> None:
    flow, refs = gated()
    layer = refs.node("1.depthwise")
    met, between = meeting_point(flow, layer, None)
    assert (refs.name(met), [refs.name(n) for n in between]) == (
        "0", ["1:relu", "1.norm0", "1.act0"],
    )  # fmt: skip
    met, between = meeting_point(flow, layer, refs.node("1.norm0"))
    assert (refs.name(met), [refs.name(n) for n in between]) == ("1.norm0", ["1.act0"])
    met, between = meeting_point(flow, refs.node("1.dense"), None)
    assert (refs.name(met), between) == ("1:mul", [])


class Padded(nn.Module):
    """A residual block that pads its image in one mode, by amounts that are given or computed."""

    def __init__(self, mode: str, computed: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)
        self.mode, self.computed = mode, computed

    def forward(self, x: Tensor) -> Tensor:
        odd = x.shape[3] % 2 if self.computed else 1
        y = F.pad(x, (2 - odd, 1, 2, 1), self.mode)[:, :, 1:, : x.shape[3] + 2]
        return x + self.conv2(torch.tanh(self.conv1(y)))


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_h_passes_the_padding_and_the_slice_of_x(mode: str, computed: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), Padded(mode, computed))
    flow = trace_model(net, example_input=torch.zeros(2, 3, 16, 15)).flow
    refs = References(flow.trace)
    path = PathMaker(flow, 4, "batch").entry(
        refs.node("1.conv1"), refs.node("0"), refs.node("1"), False
    )
    assert path.problem == ""
    layers = path.build()
    others = [(1, 1, 2, 1)] * computed + [(slice(1, None), slice(None, 17))]
    h = torch.randn(2, 4, 16, 15)
    want = F.pad(h, (1, 1, 2, 1), mode)[:, :, 1:, :17]
    assert torch.equal(layers(h, *others), layers.conv(want))
    assert [refs.name(reading.node) for reading in path.readings] == [
        *["1:pad"] * computed, "1:getitem#1",
    ]  # fmt: skip


def test_h_is_enlarged_to_the_nearest_pixels_of_the_image() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3))
    flow = trace_model(net, example_input=torch.zeros(2, 3, 8, 8)).flow
    refs = References(flow.trace)
    path = PathMaker(flow, 4, "batch").entry(refs.node("2"), refs.node("0"), refs.node("2"), False)
    assert path.problem == ""
    assert [refs.name(reading.node) for reading in path.readings] == ["1"]
    layers, h = path.build(), torch.randn(2, 4, 5, 7)
    doubled = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(layers(h, torch.zeros(2, 8, 10, 14)), layers.conv(doubled))
