"""The data flow: main output, cut points, channel axes, shapes measured once."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlawrap.capture.probes import odd_at_every_depth, probes_of
from rlawrap.capture.shapes import propagate, values_at
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References
from rlawrap.flow.traced import trace_model
from tests.nets import Residual, Small

Outputs = namedtuple("Outputs", "logits aux")


def flow_of(model: nn.Module, shape: tuple[int, ...] = (2, 3, 16, 16)) -> Flow:
    return trace_model(model, example_input=torch.zeros(shape)).flow


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.aux = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.a(x))
        return {"aux": self.aux(x), "out": self.b(self.b(x)) + x}


class Named(TwoOutputs):
    def forward(self, x: Tensor) -> Outputs:  # type: ignore[override]
        x = F.relu(self.a(x))
        return Outputs(F.relu(self.b(x)) + self.b(x), self.aux(x))


class Layouts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.fc(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2).mean((2, 3))


class Fixed(Layouts):
    """Refuses all sizes but 16x16, so that sizes do not show which axis the channels are."""

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.shape[-1] == 16, "16 pixels only")
        y = self.fc(self.conv(x).permute(0, 2, 3, 1))
        return F.gelu(y).permute(0, 3, 1, 2).mean((2, 3))


def test_the_main_output_has_the_most_convolutions_above_it() -> None:
    flow = flow_of(TwoOutputs())
    assert References(flow.trace).name(flow.main_output) == ":add"
    flow = flow_of(Named())
    assert References(flow.trace).name(flow.main_output) == ":add"


def test_cut_points_are_passed_on_every_way_to_the_output() -> None:
    flow = flow_of(TwoOutputs())
    refs = References(flow.trace)
    assert [refs.name(n) for n in flow.trunk] == [":input", "a", ":relu", ":add"]


def test_derives() -> None:
    flow = flow_of(TwoOutputs())
    refs = References(flow.trace)
    assert flow.derives(refs.node("b"), refs.node("a"))
    assert flow.derives(refs.node("a"), refs.node("a"))
    assert not flow.derives(refs.node("b"), refs.node("aux"))


def test_channel_axes_follow_the_layout() -> None:
    for net in (Layouts(), Fixed()):
        flow = flow_of(net)
        refs = References(flow.trace)
        axes = {
            r: flow.channel_axis(refs.node(r)) for r in ("conv", ":permute", "fc", ":permute#1")
        }
        assert axes == {"conv": 1, ":permute": 3, "fc": 3, ":permute#1": 1}
        assert flow.channels(refs.node("fc")) == 10
        assert flow.spatial(refs.node("fc")) == (8, 8)
        assert flow.channel_axis(refs.node(":mean")) is None


def test_windows_of_an_image_are_no_images() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            n, c, h, w = x.shape
            y = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 4, 4)
            return y.mean((2, 3)).view(n, -1, c).mean(1)

    flow = flow_of(Windows())
    refs = References(flow.trace)
    assert flow.is_image(refs.node("conv"))
    assert not flow.is_image(refs.node(":reshape"))


def test_two_of_the_probes_are_odd_and_all_differ() -> None:
    shapes = probes_of((2, 3, 224, 224))
    assert len(set(shapes)) == 4
    assert sum(s[2] % 2 for s in shapes) == 2
    assert all(s[2] != s[3] for s in shapes[1:])
    assert all(s[:2] == (2, 3) for s in shapes)


@pytest.mark.parametrize("side", [1, 16, 28, 32, 63, 224, 299, 16000])
def test_a_shape_with_sides_that_stay_odd(side: int) -> None:
    down, up = odd_at_every_depth((2, 3, side, side))[2:]
    assert down > side
    while down > 1:
        assert down % 2 == up % 2 == 1
        down, up = down // 2, -(-up // 2)


def test_results_that_are_shared_have_the_shapes_of_those_that_are_not() -> None:
    body = [layer for _ in range(3) for layer in (nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU())]
    other = [nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 0), nn.MaxPool2d(2), nn.MaxPool2d(3)]
    net = nn.Sequential(nn.Conv2d(3, 4, 1), *body, *other)
    trace = trace_model(net, example_input=torch.zeros(2, 3, 40, 40)).trace
    values = values_at(trace, torch.zeros(2, 3, 37, 40), (2, 3, 37, 40))
    shared, error = propagate(trace, values)
    assert error is None
    x = torch.zeros(2, 3, 37, 40)
    for node, layer in zip(list(trace.graph.nodes)[1:-1], net, strict=True):
        x = layer(x)
        assert shared[node].shape == x.shape


def test_a_deep_network_computes_each_shape_once() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), *(nn.Conv2d(4, 4, 3, 1, 1) for _ in range(50)))
    trace = trace_model(net, example_input=torch.zeros(2, 3, 16, 16)).trace
    # Two convolutions and what the network returns, at each of four sizes.
    assert len(trace.known) <= 3 * 4


class Folds(nn.Module):
    """A classifier behind `view(-1, …)`, which takes any larger image for several."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.max_pool2d(self.conv(x), 4).view(-1, 4 * 8 * 8))


def test_a_size_that_mixes_images_is_not_taken() -> None:
    shapes = trace_model(Folds()).flow.shapes
    assert shapes.inputs[0] == (2, 3, 32, 32)
    larger = trace_model(Folds(), example_input=torch.zeros(2, 3, 64, 64))
    assert larger.flow.shapes.inputs[0] == (2, 3, 64, 64)  # the user's own size is taken as it is
    flow = trace_model(Folds(), example_input=torch.zeros(2, 3, 32, 32)).flow
    rows = {n.name: flow.shapes.rows(n) for n in flow.nodes if n in flow.data}
    assert rows["view"] == ((2, 256), None, None, None)


class Losses(Small):
    """Sums numbers on the way, as networks do that return a loss as well."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.fc(self.body(x).mean((2, 3))), x.square().mean() + x.abs().mean()


def test_sums_of_single_numbers_are_no_images() -> None:
    traced = trace_model(Losses(Residual(8, 8), Residual(8, 8)))
    assert traced.flow.rank == 4
