"""Ways of h that end in vain are left out and named; those that are alive by any way are kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from rlawrap.errors import ConfigError, PlanError, RLAWarning


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(x)))


class Cut(nn.Module):
    """Three blocks; what the block `at` computes is detached."""

    def __init__(self, at: int, classes: int = 0, blocks: int = 3) -> None:
        super().__init__()
        self.at = at
        self.stem, self.blocks = nn.Conv2d(3, 4, 3), nn.ModuleList(map(make, range(blocks)))
        self.fc = nn.Linear(4, classes) if classes else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = x + block(x).detach() if i == self.at else block(x)
        return x if self.fc is None else self.fc(x.mean((2, 3)))


def make(index: int) -> nn.Module:
    return Residual()


EXAMPLE = torch.zeros(2, 3, 9, 9)
NOTE = (
    "blocks.2: h does not enter blocks.2.a: what it adds there is lost: :detach passes no "
    "gradient on"
)


def learn(model: nn.Module) -> dict[str, bool]:
    """Of each parameter of h, whether a gradient reaches it."""
    out = model(torch.randn(2, 3, 9, 9))
    (out * torch.randn_like(out)).sum().backward()
    return {n: p.grad is not None and bool(p.grad.any()) for n, p in model.rla.named_parameters()}


def test_the_last_entry_is_left_out_and_named_where_its_block_is_detached() -> None:
    net = Cut(at=2)
    assert rlawrap.inspect(net, example_input=EXAMPLE).notes == (NOTE,)
    with pytest.warns(RLAWarning, match="blocks.2: h does not enter blocks.2.a"):
        model = rlawrap.apply(net, k=2, init="paper", initial_state="none", example_input=EXAMPLE)
    assert model.rla.plan.notes == (NOTE,)
    assert list(dict(model.rla.inject.named_children())) == ["1"]
    assert all(learn(model).values())


HEAD = "head: h does not join fc: it reads a detached value"


@pytest.mark.parametrize(
    ("net", "left", "notes"),
    [
        (Cut(at=1), ["2"], ["blocks.1: h does not enter blocks.1.a"]),
        (Cut(at=2, classes=5), ["1"], ["blocks.2: h does not enter blocks.2.a", HEAD]),
    ],
    ids=["read later", "by head"],
)
def test_an_entry_of_a_detached_block_is_dead_as_the_h_behind_it_is_detached_too(
    net: Cut, left: list[str], notes: list[str]
) -> None:
    with pytest.warns(RLAWarning, match="what it adds there is lost: :detach passes no gradient"):
        model = rlawrap.apply(net, k=2, init="paper", initial_state="none", example_input=EXAMPLE)
    assert [note[: len(n)] for note, n in zip(model.plan.notes, notes, strict=True)] == notes
    assert rlawrap.inspect(net, example_input=EXAMPLE).notes == model.plan.notes
    assert list(dict(model.rla.inject.named_children())) == left
    assert all(learn(model).values())


def test_updates_that_only_a_dead_entry_reads_are_left_out_too() -> None:
    """Of four blocks the last two are detached: then nothing reads what the second updates."""

    class Detached(Cut):
        def forward(self, x: Tensor) -> Tensor:
            first, second, *last = self.blocks
            x = second(first(self.stem(x)))
            for block in last:
                x = x + block(x).detach()
            return x

    with pytest.warns(RLAWarning, match=r"blocks.2.a.*blocks.3: h does not enter blocks.3.a"):
        model = rlawrap.apply(Detached(at=9, blocks=4), k=2, init="paper", example_input=EXAMPLE)
    names = {n.rpartition(".")[0] for n, _ in model.rla.block.named_parameters()}
    assert names == {"0.norm"}


def test_a_plan_that_reads_h_in_vain_alone_is_refused_by_both() -> None:
    net = Cut(at=1, blocks=2)
    with pytest.raises(PlanError, match=r"nothing reads h: blocks.1: h does not enter blocks.1.a"):
        rlawrap.inspect(net, example_input=EXAMPLE)
    with pytest.raises(ConfigError, match=r"nothing reads the hidden state.*blocks\.1\.a"):
        rlawrap.apply(net, example_input=EXAMPLE)


def test_a_classifier_in_vain_is_not_joined() -> None:
    class Unheard(Cut):
        """Learns from the features; of the classifier only the choice is returned."""

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            for block in (self.stem, *self.blocks):
                x = block(x)
            return x.mean((2, 3)), self.fc(x.mean((2, 3))).detach()

    plan = rlawrap.inspect(Unheard(at=9, classes=5), example_input=EXAMPLE)
    assert plan.notes[-1] == (
        "head: h does not join fc: what it adds there is lost: :detach passes no gradient on"
    )
