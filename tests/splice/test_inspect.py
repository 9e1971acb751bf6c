"""`inspect` tells what `apply` will leave out, and `apply` warns of it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import random_rla


class Windows(nn.Module):
    """A block that convolves windows of its image, whose rows are no images of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        y = torch.tanh(self.conv(parts.reshape(-1, c, 2, 2)))
        y = y.view(n, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return x + y.reshape(n, c, h, w)


class ByMode(nn.Module):
    """Enlarges its image by another line of code in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.larger(x))

    def larger(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear" if self.training else "nearest")

    def block(self, x: Tensor) -> Tensor:
        return x + self.b(torch.tanh(self.a(x)))


class InTwoSteps(ByMode):
    """Enlarges its image by two operations in train mode, by one in eval mode."""

    def larger(self, x: Tensor) -> Tensor:
        if self.training:
            return F.avg_pool2d(F.interpolate(x, scale_factor=4), 2)
        return F.interpolate(x, scale_factor=2, mode="nearest")


class Depthwise(nn.Module):
    """Has a depthwise convolution and no dense one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.conv(x))


def net(block: type[nn.Module], count: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), *[block() for _ in range(count)],
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


REASONS = {
    Depthwise: "h does not enter {}.conv: no dense convolution follows the depthwise one",
}


@pytest.mark.parametrize("block", REASONS)
def test_inspect_tells_what_apply_leaves_out(block: type[nn.Module]) -> None:
    base = net(block, 3).eval()
    told = [f"{i}: {REASONS[block].format(i)}" for i in ("2", "3")]
    plan = rlawrap.inspect(base)
    assert [note for note in plan.notes if "h does not" in note] == told
    assert [plan.entered(b) for b in plan.blocks] == [("1.conv",), (), ()]
    assert str(plan).count("nowhere") == 2
    for given in (None, plan):
        with pytest.warns(rlawrap.RLAWarning) as caught:
            model = rlawrap.apply(base, k=4, plan=given)
        assert [str(w.message) for w in caught] == ["; ".join(told) + "."]
        assert [w.filename for w in caught] == [__file__]
        assert model.plan == plan
        assert "inject" not in model.rla._modules
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(model.eval()(x), base(x))
    assert not torch.equal(random_rla(model)(x), base(x))  # the classifier reads h


@pytest.mark.parametrize("block", [ByMode, InTwoSteps])
def test_h_follows_what_each_mode_computes_in_one_place(block: type[nn.Module]) -> None:
    base = net(block, 3).eval()
    plan = rlawrap.inspect(base)
    assert [block.entries for block in plan.blocks] == [("1.a",), ("2.a",), ("3.a",)]
    model = rlawrap.apply(base, k=4)  # a warning would be an error
    x = torch.randn(2, 3, 12, 12)
    for training in (False, True):
        base.train(training), model.train(training)
        assert torch.equal(model(x), base(x))
        entering = random_rla(copy.deepcopy(model))
        entering(x).sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in entering.rla.parameters())


def test_of_many_entries_the_first_are_named() -> None:
    with pytest.warns(rlawrap.RLAWarning, match=r"^2: .*; 6: .*; and 2 more") as caught:
        model = rlawrap.apply(net(Depthwise, 8), k=4)
    assert len(caught) == 1
    assert [note[0] for note in model.plan.notes] == list("2345678")


def test_no_entry_is_missed_where_h_enters_nothing_by_choice() -> None:
    rlawrap.apply(net(Depthwise, 3), k=4, inject="none")  # a warning would be an error


def test_what_is_no_image_is_no_entry() -> None:
    plan = rlawrap.inspect(net(Windows, 3), example_input=torch.zeros(2, 3, 16, 16))
    assert [block.entries for block in plan.blocks] == [()] * 3
    assert all("h reads its output only" in block.note for block in plan.blocks)


class Grid(nn.Module):
    """Its classifier reads a map of one size, whatever the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.cat([x.flatten(1), x.square().flatten(1)], 1))


def test_inspect_tells_of_a_classifier_that_h_does_not_join() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(torch.tanh(self.a(x)))

    base = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), *[Dense() for _ in range(3)], Grid(2 * 8 * 16 * 16)
    )
    plan = rlawrap.inspect(base, example_input=torch.zeros(2, 3, 16, 16))
    why = "head: h does not join 4.fc: h cannot be brought to the size of cat"
    assert why in plan.notes
    assert (plan.head, plan.joined) == (("4.fc",), ())
    assert "head: none" in str(plan)
    assert rlawrap.apply(base, k=4, example_input=torch.zeros(2, 3, 16, 16)).plan == plan
