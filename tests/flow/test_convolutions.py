"""Filters that are no parameters: computed, kept, made by layers, one for each image."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from rlawrap.flow.traced import trace_model
from rlawrap.flow.windows import Conv, Window
from tests.nets import random_rla, relative

WINDOW = Window((3, 3), (1, 1), (1, 1), (1, 1))


class Kept(nn.Module):
    """A filter is computed in train mode, and kept for eval mode."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(outputs, inputs, 3, 3) * 0.1)
        self.cached = self.raw.detach() * 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.raw * 2 if self.training else self.cached, padding=1)


class Made(nn.Module):
    """Layers make the filter, of the images and of a code that nothing learns."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shape = (outputs, inputs, 3, 3)
        self.make = nn.Linear(inputs, outputs * inputs * 9)
        self.register_buffer("code", torch.randn(inputs))

    def forward(self, x: Tensor) -> Tensor:
        filter_ = self.make(x.mean((0, 2, 3)) + self.code).view(self.shape) * 0.3
        return F.conv2d(x, filter_, padding=1)


class ForEach(nn.Module):
    """A filter for each image, mixed of several, as a grouped convolution of one image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.filters = nn.Parameter(torch.randn(3, outputs * inputs * 9) * 0.1)
        self.route = nn.Linear(inputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        mixed = torch.sigmoid(self.route(x.mean((2, 3)))) @ self.filters
        filters = mixed.view(n * self.outputs, self.inputs, 3, 3)
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), filters, padding=1, groups=n)
        return y.view(n, self.outputs, *y.shape[2:])


class Block(nn.Module):
    def __init__(self, conv: type[nn.Module]) -> None:
        super().__init__()
        self.one, self.two = conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(F.relu(self.one(x)))


@pytest.mark.parametrize(
    ("conv", "layer"), [(Kept, "conv2d"), (Made, "conv2d"), (ForEach, "view#1")]
)
def test_their_blocks_are_found_and_entered_in_both_modes(
    conv: type[nn.Module], layer: str
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *(Block(conv) for _ in range(3)))
    model = rlawrap.apply(net, k=4)
    assert [(b.path, b.entries) for b in model.plan.blocks] == [
        (f"{i}", (f"{i}.one:{layer}",)) for i in (1, 2, 3)
    ]
    changed = random_rla(copy.deepcopy(model))
    for training in (False, True):
        x = torch.randn(3, 3, 13, 12)
        want = copy.deepcopy(net).train(training)(x)
        assert torch.equal(want, model.train(training)(x))
        assert relative(want, changed.train(training)(x)) > 1e-4


def test_a_filter_for_each_image_is_known_by_an_example_of_one() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), *(Block(ForEach) for _ in range(3))).eval()
    model = rlawrap.apply(net, k=4, example_input=torch.zeros(1, 3, 12, 12))
    for n in (1, 3):
        x = torch.randn(n, 3, 12, 12)
        assert torch.equal(net(x), model(x))


def convs(layer: nn.Module) -> list[Conv]:
    flow = trace_model(nn.Sequential(nn.Conv2d(3, 8, 1), layer)).flow
    return [c for n in flow.nodes if (c := flow.ops.conv(n)) is not None and c.window][1:]


class Filtered(nn.Module):
    """A convolution over a buffer."""

    def __init__(self, *shape: int, groups: int = 1, transposed: bool = False) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(shape))
        self.groups, self.transposed = groups, transposed

    def forward(self, x: Tensor) -> Tensor:
        if self.transposed:
            return F.conv_transpose2d(x, self.kernel, None, 1, 1, 0, self.groups)
        return F.conv2d(x, self.kernel, padding=1, groups=self.groups)


class Blur(nn.Module):
    """Its filter lies where a parameter does, and has nothing else of it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.ones(8, 1, 3, 3, device=self.scale.device)
        return F.conv2d(x, kernel, padding=1, groups=8) * self.scale


class Correlated(nn.Module):
    """All images are correlated with the features of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.feature = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.feature(x[:1])[..., ::2, ::2], padding=8)


def test_which_filters_are_learned() -> None:
    assert convs(Blur()) == []
    blur = Filtered(8, 1, 3, 3, groups=8)
    assert convs(blur) == []
    blur.raw = nn.Parameter(torch.ones(8, 1, 3, 3))  # which the buffer keeps
    assert convs(blur) == [Conv(8, 8, 8, WINDOW)]
    assert convs(Filtered(8, 8, 3, 3)) == [Conv(8, 8, 1, WINDOW)]
    assert convs(Filtered(8, 6, 3, 3, transposed=True)) == [Conv(8, 6, 1, WINDOW, True)]
    assert convs(ForEach(8, 6)) == [Conv(8, 6, 1, WINDOW)]


def test_a_feature_is_no_filter() -> None:
    assert [c.window.kernel for c in convs(Correlated()) if c.window] == [(1, 1)]
