"""What a forward does besides computing tensors: done again, told of, or refused."""

from __future__ import annotations

import copy
import random
from contextlib import nullcontext
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import BlockNet, uneven


class Doing(nn.Module):
    """`BlockNet` behind a stem that does something on the side."""

    def __init__(self) -> None:
        super().__init__()
        self.side = type(self).Side()
        self.net = BlockNet()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.side(x))

    class Side(nn.Module):
        """Nothing yet."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.zeros((), dtype=torch.long))
            self.register_buffer("mean", torch.zeros(3))
            self.calls = 0
            self.seen: list[Any] = []
            self.scale = nn.Parameter(torch.ones(3, 1, 1))


class Counts(Doing):
    class Side(Doing.Side):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                self.steps += 1
                self.mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
            return x * self.scale


class Replaces(Doing):
    class Side(Doing.Side):
        def forward(self, x: Tensor) -> Tensor:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 2, 3))
            return x


class Sets(Doing):
    class Side(Doing.Side):
        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.training_steps = self.calls
            self.seen.append(x)
            self.penalty = x.square().mean()
            return x


class Region(Doing):
    class Side(Doing.Side):
        def forward(self, x: Tensor) -> Tensor:
            with self.region():
                return x * self.scale

        def region(self) -> Any:
            return torch.no_grad()


class Autocast(Region):
    class Side(Region.Side):
        def region(self) -> Any:
            return torch.autocast("cpu", enabled=False)


class Asking(Region):
    """Only asks for a shape where gradients are off."""

    class Side(Doing.Side):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                size = x.shape[0]
            return x * self.scale + torch.zeros(size, 3, 1, 1)


class Chance(Doing):
    class Side(Doing.Side):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if self.training and numpy.random.rand() < 0.5 else x  # noqa: NPY002


class Renamed(Doing):
    """Adds in place to a tensor that has another name, too."""

    class Side(Doing.Side):
        def forward(self, x: Tensor) -> Tensor:
            y = z = x * self.scale
            y += 1
            z *= y
            return y + z


def _numpy_state() -> bytes:
    return numpy.random.get_state()[1].tobytes()  # noqa: NPY002


@pytest.mark.parametrize("kind", [Counts, Renamed, Asking])
def test_what_is_done_in_place_is_done_again(kind: type[Doing]) -> None:
    base = uneven(kind())
    model = rlawrap.apply(base, k=4)
    for training in (True, False, True):
        x = torch.randn(4, 3, 16, 16)
        torch.manual_seed(1)
        expected = base.train(training)(x)
        torch.manual_seed(1)
        assert torch.allclose(expected, model.train(training)(x), atol=1e-5)
        for (name, a), b in zip(base.named_buffers(), model.buffers(), strict=False):
            assert torch.allclose(a, b, atol=1e-6), name
    assert int(model.side.steps) == (2 if kind is Counts else 0)
    assert model.side.mean.any() == (kind is Counts)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (Replaces, "gives its buffer, parameter or module 'mean' another value"),
        (Region, "switches gradients for a part of it"),
        (Autocast, "switches autocast for a part of it"),
        (Chance, "draws random numbers"),
    ],
)
def test_what_a_graph_would_not_do_is_kept_whole(kind: type[Doing], what: str) -> None:
    base = kind()
    before = copy.deepcopy(base.state_dict())
    states = torch.get_rng_state(), random.getstate(), _numpy_state()
    model = rlawrap.apply(base, k=4)
    assert any(note.startswith(f"kept whole: side, it {what}") for note in model.plan.notes)
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), _numpy_state())
    for training in (True, False, True):
        x = torch.randn(2, 3, 16, 16)
        _seed()
        expected = base.train(training)(x)
        _seed()
        assert torch.allclose(expected, model.train(training)(x), atol=1e-5)
        for (name, a), b in zip(base.named_buffers(), model.buffers(), strict=False):
            assert torch.allclose(a, b, atol=1e-6), name
    assert rlawrap.inspect(base, leaf_modules=["side"]).blocks == model.plan.blocks


def _seed() -> None:
    torch.manual_seed(2)
    random.seed(2)
    numpy.random.seed(2)  # noqa: NPY002


def test_the_mode_at_the_call_of_apply_is_no_switch() -> None:
    for around in (torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16), nullcontext):
        with around():
            assert len(rlawrap.inspect(BlockNet()).blocks) == 3


def test_an_attribute_that_forward_sets_is_told_of() -> None:
    base = Sets()
    with pytest.warns(rlawrap.RLAWarning, match="module 'side' .Side. sets its") as caught:
        model = rlawrap.apply(base, k=4)
    told = [
        w
        for name in ("calls", "seen", "penalty", "training_steps")
        for w in caught
        if f"'{name}'" in str(w)
    ]
    assert len(told) == len(caught) == 4
    assert sum("sets its attribute" in note for note in model.plan.notes) == 4
    assert base.side.calls == model.side.calls == 0
    assert base.side.seen == model.side.seen == []
    assert not hasattr(model.side, "penalty")
