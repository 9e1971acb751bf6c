"""What only scales and shifts an image is no entry, no input and no join of a block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.discover.renaming import renamed, translated

PAIR = (torch.zeros(2, 3, 16, 16), torch.zeros(2, 4, 16, 16))


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Spade(nn.Module):
    """A norm whose scale and shift are convolutions of a map."""

    def __init__(self, flipped: bool = False) -> None:
        super().__init__()
        self.norm, self.shared = nn.BatchNorm2d(8, affine=False), conv(4, 8)
        self.gamma, self.beta, self.flipped = conv(8, 8), conv(8, 8), flipped

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        s = F.relu(self.shared(F.interpolate(c, size=x.shape[2:])))
        if self.flipped:
            return self.beta(s) + (1 + self.gamma(s)) * self.norm(x)
        return self.norm(x) * (1 + self.gamma(s)) + self.beta(s)


class SpadeBlock(nn.Module):
    def __init__(self, flipped: bool = False) -> None:
        super().__init__()
        self.first, self.second = Spade(flipped), Spade(flipped)
        self.conv1, self.conv2 = conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.first(x, c)))
        return x + self.conv2(F.relu(self.second(y, c)))


class PlainSpade(nn.Module):
    """No residual: the shift is the only addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.spade = conv(8, 8), Spade()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return F.relu(self.spade(self.conv1(x), c))


class Film(nn.Module):
    """One convolution of the map gives both, in the block's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.conv1, self.conv2 = nn.Conv2d(4, 16, 1), conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.both(c).chunk(2, 1)
        y = self.conv1(x) * scale + shift
        return x + self.conv2(F.relu(y))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.conv1, self.conv2 = nn.Conv2d(4, 8, 1), conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        y = F.relu(self.conv1(x)) * torch.sigmoid(self.gate(c))
        return x + self.conv2(y)


class Generator(nn.Module):
    """Enlarges the image between blocks that all read the map."""

    def __init__(self, block: Callable[[], nn.Module], enlarge: int = 1) -> None:
        super().__init__()
        self.stem, self.out, self.enlarge = conv(3, 8), conv(8, 3), enlarge
        self.body = nn.ModuleList(block() for _ in range(3))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.body:
            x = block(F.interpolate(x, scale_factor=self.enlarge) if self.enlarge > 1 else x, c)
        return self.out(x)


@pytest.mark.parametrize("block", [SpadeBlock, lambda: SpadeBlock(True), PlainSpade, Film, Gated])
def test_the_image_is_the_input_and_its_convolution_the_entry(
    block: Callable[[], nn.Module],
) -> None:
    net = Generator(block)
    plan = rlawrap.inspect(net, example_input=PAIR)
    assert [b.path for b in plan.blocks] == ["body.0", "body.1", "body.2"]
    assert [b.entries for b in plan.blocks] == [(f"body.{i}.conv1",) for i in range(3)]
    assert [str(b.input).split(":")[0] for b in plan.blocks] == ["stem", "body.0", "body.1"]
    assert {(b.in_channels, b.stride, b.size) for b in plan.blocks} == {(8, 1.0, (16, 16))}
    assert plan.head == ("out",)
    model = rlawrap.apply(net, k=4, example_input=PAIR).eval()
    x, c = torch.randn(1, 3, 20, 12), torch.randn(1, 4, 20, 12)
    assert torch.allclose(model(x, c), net.eval()(x, c), atol=1e-5)
    assert len(model.rla.inject) == 2


def test_the_geometry_is_the_images() -> None:
    plan = rlawrap.inspect(Generator(SpadeBlock, enlarge=2), example_input=PAIR)
    assert [b.size for b in plan.blocks] == [(32, 32), (64, 64), (128, 128)]
    assert {b.stride for b in plan.blocks} == {1.0}
    assert plan.blocks[1].input == ":interpolate#1"


def test_the_shift_of_an_image_is_no_join() -> None:
    plan = rlawrap.inspect(Generator(PlainSpade), example_input=PAIR)
    assert {b.class_name for b in plan.blocks} == {"PlainSpade"}
    assert {b.branch for b in plan.blocks} == {None}


def test_an_image_that_another_gates_is_no_condition() -> None:
    class Attended(nn.Module):
        """A decoder block: the skip is gated by the image, and joins it."""

        def __init__(self) -> None:
            super().__init__()
            self.gate, self.conv1 = nn.Conv2d(8, 4, 1), conv(12, 8)

        def forward(self, x: Tensor, skip: Tensor) -> Tensor:
            return F.relu(self.conv1(torch.cat([x, skip * torch.sigmoid(self.gate(x))], 1)))

    plan = rlawrap.inspect(Generator(Attended), example_input=PAIR)
    assert [b.entries[-1] for b in plan.blocks] == [f"body.{i}.gate" for i in range(3)]
    assert plan.blocks[1].input == "body.0:relu"


def test_a_gate_of_the_image_itself_is_a_part_of_the_block() -> None:
    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2, self.gate = conv(8, 8), conv(8, 8), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            y = self.conv2(F.relu(self.conv1(x)))
            return x + y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))

    plan = rlawrap.inspect(Generator(Squeeze), example_input=PAIR)
    assert plan.blocks[0].entries == ("body.0.conv1",)
    assert plan.blocks[0].branch == "body.0:mul"


@pytest.mark.parametrize("block", [SpadeBlock, Film])
def test_the_names_of_attributes_decide_nothing(block: type[nn.Module]) -> None:
    net = Generator(block)
    twin, paths = renamed(net, seed=3)
    ours = translated(rlawrap.inspect(twin, example_input=PAIR), {p: p for p in paths.values()})
    assert ours == translated(rlawrap.inspect(net, example_input=PAIR), paths)
