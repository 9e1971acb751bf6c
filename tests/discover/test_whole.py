"""Modules that tracing cannot follow are kept whole, and are blocks all the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import Residual, Small

IMAGE = torch.zeros(2, 3, 16, 16)


class Clipped(nn.Module):
    """A residual block that asks about the values of a tensor."""

    def __init__(self, inputs: int = 8, outputs: int = 8, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.relu(x))
        if y.max() > 6:
            y = y.clamp(max=6)
        return y + x if y.shape == x.shape else y


class Reduced(Clipped):
    """Another class, that halves the image."""

    def __init__(self) -> None:
        super().__init__(8, 8, 2)


def test_blocks_that_cannot_be_followed_are_kept_whole() -> None:
    net = Small(Clipped(), Clipped(8, 8, 2), Clipped()).eval()
    found = rlawrap.inspect(net)
    assert sum("kept whole: body." in note for note in found.notes) == 3
    plan = rlawrap.inspect(net, leaf_modules=[Clipped])
    assert plan.blocks == found.blocks
    assert [b.path for b in plan.blocks] == ["body.0", "body.1", "body.2"]
    assert [b.entries for b in plan.blocks] == [(), (), ()]
    assert {b.note for b in plan.blocks} == {
        "a leaf module: h reads its output and cannot enter it"
    }
    assert plan.head == ("fc",)
    assert rlawrap.inspect(net, leaf_modules=["body.0", "body.1", "body.2"]).blocks == plan.blocks
    model = rlawrap.apply(net, k=4, leaf_modules=[Clipped]).eval()
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(x), net(x))
    joined = model.get_parameter("rla.head.join.0.linear.weight")
    torch.nn.init.ones_(joined)
    assert not torch.allclose(model(x), net(x))


def test_kept_whole_beside_other_blocks() -> None:
    net = Small(Residual(8, 8), Clipped(), Reduced(), Residual(8, 8), Clipped(), Reduced())
    plan = rlawrap.inspect(net, leaf_modules=[Clipped], example_input=IMAGE)
    assert [b.path for b in plan.blocks] == ["body.0", "body.1", "body.3", "body.4"]
    assert dict(plan.left_out) == {
        "body.2": "kept whole, and no block: changes the shape each time",
        "body.5": "kept whole, and no block: changes the shape each time",
    }
    net = Small(Residual(8, 8), Clipped(), Residual(8, 8))
    plan = rlawrap.inspect(net, leaf_modules=[Clipped], example_input=IMAGE)
    assert [b.path for b in plan.blocks] == ["body.0", "body.2"]
    assert dict(plan.left_out) == {"body.1": "kept whole, and no block: the only Clipped"}


def test_a_part_of_a_block_that_is_kept_whole_is_no_block() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.inner = nn.Conv2d(8, 8, 3, padding=1), Clipped()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(F.relu(self.conv(x)))

    plan = rlawrap.inspect(Small(Outer(), Outer()), leaf_modules=[Clipped], example_input=IMAGE)
    assert [(b.path, b.entries) for b in plan.blocks] == [
        ("body.0", ("body.0.conv",)),
        ("body.1", ("body.1.conv",)),
    ]
    assert plan.left_out == ()
