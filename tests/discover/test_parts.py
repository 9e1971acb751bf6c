"""The parts that a refusal of the whole tells: the largest, found by trying."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.discover import parts
from rlawrap.discover.part_inputs import part_inputs
from rlawrap.discover.parts import rewritable_parts
from tests.nets import Residual
from tests.refused import Cut, classifier, inside, plain


class Maps(nn.Module):
    """A body whose maps are returned after a projection of each, as a pyramid does."""

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), Residual(4, 4))
            self.b = Residual(4, 4)

        def forward(self, x: Tensor) -> list[Tensor]:
            return [a := self.a(x), self.b(a)]

    def __init__(self) -> None:
        super().__init__()
        self.body = self.Body()
        self.lateral = nn.ModuleList(nn.Conv2d(4, 2, 1) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(y) for layer, y in zip(self.lateral, self.body(x), strict=True)]


def paths(root: nn.Module) -> list[str]:
    """The parts that can be rewritten by themselves."""
    found = rewritable_parts(root)
    assert all(part.needs is None for part in found)
    return [part.path for part in found]


def test_alike_parts_are_all_told_and_small_ones_are_not() -> None:
    towers = nn.ModuleDict({"a": classifier(), "b": nn.Sequential(classifier(), nn.ReLU())})
    small = nn.Sequential(*plain(3, 4), nn.ReLU())
    assert paths(inside(towers=towers, small=small)) == ["body", "towers.a", "towers.b"]


def test_a_part_in_which_h_would_learn_nothing_is_not_told() -> None:
    """The mean of what an instance norm has centred is zero, whatever h adds before."""
    layers = [nn.Conv2d(3, 4, 3), Residual(4, 4), Residual(4, 4), nn.InstanceNorm2d(4)]
    pooled = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
    assert paths(nn.ModuleDict({"net": nn.Sequential(*copy.deepcopy(layers))})) == ["net"]
    assert paths(nn.ModuleDict({"net": pooled})) == []
    with pytest.raises(rlawrap.RLAError, match="what it adds there is lost"):
        rlawrap.apply(pooled, k=2)


def test_what_was_found_is_not_looked_into_and_what_fails_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(classifier(), nn.Identity())

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) if x.sum() > 0 else x

    tried: list[Any] = []
    trace = parts.trace_model
    monkeypatch.setattr(parts, "trace_model", lambda m, **o: tried.append(m) or trace(m, **o))
    root = nn.ModuleDict({"asking": Asking()})
    assert paths(root) == ["asking.net"]
    assert tried == [root["asking"], root["asking"].net]


def test_no_more_are_tried_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def refuse(module: nn.Module, **options: Any) -> None:
        tried.append(module)
        raise rlawrap.PlanError("no")

    monkeypatch.setattr(parts, "trace_model", refuse)
    assert rewritable_parts(nn.ModuleList(classifier() for _ in range(20))) == []
    assert len(tried) == parts.TRIES


def test_of_a_pyramid_the_body_is_told() -> None:
    root = nn.ModuleDict({"maps": Maps()})
    assert paths(root) == ["maps.body"]
    x = torch.rand(1, 3, 8, 8)
    model: Any = rlawrap.apply(root, k=2, at="maps.body")
    assert all(map(torch.equal, model["maps"].eval()(x), root["maps"].eval()(x)))


@pytest.mark.parametrize("by_name", [False, True])
def test_of_a_part_that_no_guess_suits_it_is_told_what_it_gets(by_name: bool) -> None:
    model, x = Cut(by_name), torch.rand(2, 3, 8, 9)
    state, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    kind = "dict of image: {}, scale: {}" if by_name else "tuple of {}, {}"
    gets = kind.format(r"a tensor of \(2, 3, 8, 8\)", r"a tensor of \(\)")
    with pytest.raises(rlawrap.TraceError, match=f"at='both', example_input=y.* here a {gets}"):
        rlawrap.apply(model, k=2, example_input=(x, torch.tensor(8)))
    assert model.calls == 0 and torch.equal(generator, torch.get_rng_state())
    assert all(map(torch.equal, model.state_dict().values(), state.values()))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_without_an_example_nothing_is_run() -> None:
    model = Cut(by_name=False)
    assert part_inputs(model, None, ["", "both"]) == {}
    assert list(part_inputs(model, torch.rand(2, 3, 8, 8), ["", "both"])) == [""]  # no length


class OfOneSize(nn.Module):
    """Loses its size on the way, so that it is recorded for one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = classifier()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x / float(str(x.size(-1))))
        return y


def test_a_part_that_a_guess_would_hold_to_its_size_is_not_told() -> None:
    root = nn.ModuleDict({"a": nn.Sequential(OfOneSize(), nn.Identity())})
    assert "takes no other size" in str(rlawrap.inspect(root["a"]).notes)
    assert paths(root) == ["a.0.net"]
    got = {"a": (torch.rand(1, 3, 8, 8),)}
    (part,) = rewritable_parts(root, lambda: got)
    assert part.path == "a" and part.needs is got["a"]
