"""h follows every change of size of the main path, exactly, at every size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from rlawrap.flow.geometry import Crop, Pad, Pool, Step, pools_for, resize_to, route, steps_of
from rlawrap.flow.references import References
from rlawrap.flow.traced import trace_model
from rlawrap.flow.windows import Window

SIZES = range(7, 40)
WINDOWS = [
    (kernel, stride, padding, dilation)
    for kernel in (1, 2, 3, 4, 5, 7)
    for stride in (1, 2, 3, 4)
    for padding in (0, 1, 2, 3)
    for dilation in (1, 2)
    if padding < kernel
]


def window(kernel: int, stride: int, padding: int, dilation: int, ceil: bool = False) -> Window:
    return Window((kernel,), (stride,), (padding,), (dilation,), ceil)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), WINDOWS[::7])
def test_a_windows_size_is_that_of_torch(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    weight = torch.zeros(1, 1, kernel)
    for n in range(dilation * (kernel - 1) + 1, 30):
        out = F.conv1d(torch.zeros(1, 1, n), weight, None, stride, padding, dilation)
        assert window(kernel, stride, padding, dilation).size((n,)) == (out.shape[-1],)


@pytest.mark.parametrize(("kernel", "padding"), [(2, 0), (3, 1), (3, 0), (4, 1)])
def test_a_pools_size_with_ceil_mode_is_that_of_torch(kernel: int, padding: int) -> None:
    for n in range(kernel, 30):
        out = F.max_pool1d(torch.zeros(1, 1, n), kernel, 2, padding, ceil_mode=True)
        assert window(kernel, 2, padding, 1, True).size((n,)) == (out.shape[-1],)


def test_h_is_pooled_to_the_size_of_every_window() -> None:
    for kernel, stride, padding, dilation in WINDOWS:
        given = window(kernel, stride, padding, dilation)
        steps = pools_for(given)
        for n in SIZES:
            expected = given.size((n,))
            if expected[0] < 1:
                continue
            size: tuple[int, ...] = (n,)
            for step in steps:
                size = step.size(size)
            assert size == expected, (given, n, steps)


def test_a_strided_3x3_pools_h_2x2_as_published() -> None:
    three = Window((3, 3), (2, 2), (1, 1), (1, 1))
    pool = Pool(Window((2, 2), (2, 2), (0, 0), (1, 1), ceil_mode=True))
    assert pools_for(three) == [pool]
    assert pool.size((56, 56)) == (28, 28)
    assert pool.size((57, 55)) == (29, 28)


def test_padding_adds_to_both_sides() -> None:
    assert Pad(((1, 2), (0, 3))).size((4, 5)) == (7, 8)


@pytest.mark.parametrize("part", [(1, None), (None, -2), (-4, -1), (2, 30), (None, None)])
def test_a_slices_size_is_that_of_torch(part: tuple[int | None, int | None]) -> None:
    for n in range(5, 40):
        expected = torch.zeros(1, 1, n)[:, :, slice(*part)].shape[2:]
        assert Crop((part,)).size((n,)) == tuple(expected)


class Sized(nn.Module):
    """One operation between two convolutions, on images whose channels are first or last."""

    def __init__(self, change: Callable[[Tensor], Tensor], last: bool = False) -> None:
        super().__init__()
        self.change, self.last = change, last
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Linear(6, 6) if last else nn.Conv2d(6, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(self.change(x.permute(0, 2, 3, 1) if self.last else x))


@pytest.mark.parametrize(
    ("change", "last", "steps"),
    [
        (nn.ReflectionPad2d((1, 2, 0, 3)), False, [Pad(((0, 3), (1, 2)), "reflect")]),
        (nn.CircularPad2d(1), False, [Pad(((1, 1), (1, 1)), "circular")]),
        (lambda x: F.pad(x, (1, 2), value=1.0), False, [Pad(((0, 0), (1, 2)))]),
        (lambda x: F.pad(x, (0, 0, 1, 2)), True, [Pad(((0, 0), (1, 2)))]),
        (lambda x: F.pad(x, (0, 0, 0, 0, 3, 0)), True, [Pad(((3, 0), (0, 0)))]),
        (lambda x: F.pad(x, (0, x.shape[2] % 2)), False, None),
        (lambda x: x[..., 1:], False, [Crop(((None, None), (1, None)))]),
        (lambda x: x[:, 1:, :-2], True, [Crop(((1, None), (None, -2)))]),
        (lambda x: x[:, :6], False, []),
        (lambda x: x[:, :, ::2, ::2], False, None),
        (lambda x: x[:, :, : x.shape[2] // 2], False, None),
    ],
)  # fmt: skip
def test_what_an_operation_does_to_sizes(
    change: Callable[[Tensor], Tensor], last: bool, steps: list[Step] | None
) -> None:
    flow = trace_model(Sized(change, last), example_input=torch.zeros(2, 3, 16, 16)).flow
    refs = References(flow.trace)
    (node,) = flow.sources[refs.node("b")]
    assert steps_of(flow, node) == steps
    resize = resize_to(flow, node)
    assert resize is not None
    assert resize.axes == ((1, 2) if last else (2, 3))


class Gated(nn.Module):
    """A strided convolution of fixed padding, times a gate that stands first in the product."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.conv = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 6, 3, 2)
        self.gate = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pad(x))
        return torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))) * x


def test_a_gate_before_the_image_is_no_way_of_the_image() -> None:
    flow = trace_model(Gated()).flow
    refs = References(flow.trace)
    steps = route(flow, refs.node(":input"), refs.node(":mul"))
    assert steps == [
        Pad(((0, 1), (0, 1))),
        Pool(Window((3, 3), (2, 2), (0, 0), (1, 1))),
    ]


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, down: nn.Module | None = None) -> None:
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.adds = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        if self.down is not None:
            x = self.down(x)
        y = torch.tanh(self.conv(x))
        return x + y if self.adds else y


@pytest.mark.parametrize(
    "down",
    [
        nn.Conv2d(6, 6, 3, 2, 1),
        nn.Conv2d(6, 6, 2, 2),
        nn.Conv2d(6, 6, 3, 2),
        nn.Conv2d(6, 6, 4, 4),
        nn.Conv2d(6, 6, 3, 2, 2, dilation=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(2),
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(6, 6, 3, 2)),
        nn.Conv2d(6, 6, (5, 3), (2, 1), (2, 0)),
    ],
    ids=str,
)
@pytest.mark.parametrize("between", [True, False], ids=["between blocks", "in a block"])
def test_rewritten_networks_run_at_every_size(down: nn.Module, between: bool) -> None:
    if between:
        body = [Block(6, 6), down, Block(6, 6)]
    else:
        body = [Block(6, 6), Block(6, 6, down)]
    base = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), *body, Block(6, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 2),
    ).eval()  # fmt: skip
    model = rlawrap.apply(base, k=2, example_input=torch.zeros(1, 3, 16, 16)).eval()
    assert len(model.plan.blocks) == 3
    for n in (15, 16, 17, 18, 19, 23):
        x = torch.randn(1, 3, n, n + 3)
        assert torch.equal(model(x), base(x))


class Placed(nn.Module):
    """Halves the image, rounding down, and adds a learned map of one size: others are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.conv = nn.AvgPool2d(2), nn.Conv2d(6, 6, 3, padding=1)
        self.place = nn.Parameter(torch.randn(1, 6, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv(self.pool(x)) + self.place)
        return self.pool(x) + y


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (17, 17)])
def test_windows_decide_where_the_network_refuses_the_probes(size: tuple[int, int]) -> None:
    base = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), Block(6, 6), Placed(), Block(6, 6), Block(6, 6),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2),
    ).eval()  # fmt: skip
    model = rlawrap.apply(base, k=4, example_input=torch.zeros(2, 3, 16, 16))
    assert len(model.plan.blocks) == 4
    x = torch.randn(2, 3, *size)
    assert torch.equal(model(x), base(x))
