"""Forwards that ask about shapes are followed; those that ask about values are refused by line."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.capture.asking import (
    Asserts,
    Block,
    Chunks,
    EqualChannels,
    EqualShapes,
    Lengths,
    PathDrop,
    Rank,
)  # fmt: skip

FOLLOWED = [EqualShapes, EqualChannels, Rank, Asserts, Lengths, PathDrop, Chunks]


def net_of(block: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), block(), block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    )  # fmt: skip


@pytest.mark.parametrize("block", FOLLOWED)
@pytest.mark.parametrize("training", [False, True])
def test_followed(block: type[nn.Module], training: bool) -> None:
    net = net_of(block).train(training)
    model = rlawrap.apply(net, k=4)
    assert [len(b.entries) for b in model.plan.blocks] == [1, 1]
    for batch, size in ((4, (20, 20)), (3, (31, 17))):
        x = torch.randn(batch, 3, *size)
        torch.manual_seed(1)
        expected = net(x)
        torch.manual_seed(1)
        torch.testing.assert_close(model(x), expected)


def test_what_was_taken_to_hold_is_checked() -> None:
    model = rlawrap.apply(net_of(Rank), k=4).eval()
    with pytest.raises(AssertionError, match="traced for inputs of another size or kind"):
        model(torch.randn(3, 20, 20))
    asserting = rlawrap.apply(net_of(Asserts), k=4).eval()
    with pytest.raises(AssertionError, match="assertion in the forward"):
        asserting(torch.randn(1, 3, 5, 5))


def test_traced_again_and_compiled() -> None:
    model = rlawrap.apply(net_of(Lengths), k=4).eval()
    x = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


class Odd(Block):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 2:
            x = F.pad(x, (0, 1))
        return F.relu(x + self.body(x))


def test_a_branch_on_the_size_has_one_way() -> None:
    net = net_of(Odd).eval()
    net[0].stride = (1, 1)
    model = rlawrap.apply(net, k=4)
    assert any("at 261x263 its forward goes another way" in note for note in model.plan.notes)
    for size in (32, 60):
        x = torch.randn(3, 3, size, size)
        torch.testing.assert_close(model(x), net(x))
    with pytest.raises(AssertionError, match="another size"):
        model(torch.randn(2, 3, 30, 31))
    x = torch.randn(2, 3, 30, 31)
    model = rlawrap.apply(net, k=4, example_input=x)
    torch.testing.assert_close(model(x), net(x))
    with pytest.raises(AssertionError, match="another size"):
        model(torch.randn(2, 3, 32, 32))


class Values(Block):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x * 2
        return F.relu(x + self.body(x))


class Gradient(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + (self.body(x) if x.requires_grad else x))


class Chance(Block):
    """Skips its branch by a coin that tracing would toss once for all."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.rand(1).item() < 0.5:
            return x
        return F.relu(x + self.body(x))


KEPT_WHOLE = [
    (Values, "asks for a tensor's value"),
    (Gradient, "asks for 'requires_grad' of a tensor, which may change"),
    (Chance, "draws random numbers and goes on with their values"),
]


@pytest.mark.parametrize(("block", "reason"), KEPT_WHOLE)
@pytest.mark.parametrize("training", [False, True])
def test_kept_whole(block: type[nn.Module], reason: str, training: bool) -> None:
    net = net_of(block).train(training)
    state = torch.get_rng_state()
    model = rlawrap.apply(net, k=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert [b.path for b in model.plan.blocks] == ["1", "2"]
    for path in ("1", "2"):
        assert any(note.startswith(f"kept whole: {path}, it {reason}") for note in model.plan.notes)
    asked = rlawrap.apply(net, k=4, leaf_modules=[block])
    assert not any("kept whole" in note for note in asked.plan.notes)
    for i in range(4):
        x = torch.randn(2, 3, 16, 16) + i - 2
        torch.manual_seed(i)
        expected = copy.deepcopy(net)(x)
        torch.manual_seed(i)
        torch.testing.assert_close(model(x), expected)


class AllInOne(nn.Module):
    """Asks for a value where no module could be kept whole."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net_of(Rank)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x * 2 if x.mean() > 0 else x)


class Picky(AllInOne):
    """Takes no image of the size that is tried first."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 224:
            raise ValueError("too large")
        return self.net(x)


def test_a_network_is_rewritten_while_the_refusal_of_another_is_handled() -> None:
    try:
        rlawrap.apply(AllInOne())
    except rlawrap.TraceError:
        model = rlawrap.apply(Picky(), k=4)
    assert model.plan.input_shape[2:] == (32, 32)


def test_the_forward_of_the_root_is_refused_by_line() -> None:
    net = AllInOne().eval()
    with pytest.raises(rlawrap.TraceError, match=r"the forward of AllInOne.*x\.mean\(\) > 0") as e:
        rlawrap.apply(net, k=4)
    assert "`rlawrap.apply(model, at='net')`" in str(e.value)
    model = rlawrap.apply(net, at="net", k=4)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(x), net(x))
