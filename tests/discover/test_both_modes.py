"""Networks whose modes run the blocks unlike."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap
from tests.nets import Residual, random_rla, relative

IMAGE = torch.randn(4, 3, 16, 16)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(stem, Residual(8, 8), Residual(8, 12, 2), Residual(12, 12))
        self.fc = nn.Linear(12, 4)

    def one(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.body(x).mean((2, 3)))
        return out


class TwoViews(Net):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.one(x), self.one(x)] if self.training else [self.one(x)]


class Flips(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if self.training else (self.one(x) + self.one(x.flip(3))) / 2


class Refined(Net):
    def __init__(self) -> None:
        super().__init__()
        self.refine = Residual(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        out: Tensor = self.fc((y if self.training else self.refine(y)).mean((2, 3)))
        return out


class Spread(TwoViews):
    """No part of it has blocks by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one_block, self.other = self.body[0], self.body[1], Residual(8, 12)
        del self.body

    def one(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.other(self.one_block(self.stem(x))).mean((2, 3)))
        return out


@pytest.mark.parametrize(
    ("net", "calls"),
    [(TwoViews, "2 times in training mode and 1 in eval"), (Flips, "1 times in .* and 2 in eval")],
)
def test_blocks_that_one_mode_runs_more_often_are_rewritten_in_a_part(
    net: type[Net], calls: str
) -> None:
    for call in (rlawrap.inspect, rlawrap.apply):
        with pytest.raises(rlawrap.PlanError, match=rf"calls body.1 {calls}.*at='body'"):
            call(net())
    model = rlawrap.apply(net(), at="body", k=4)
    assert [b.path for b in model.body.plan.blocks] == ["1", "2", "3"]


def test_h_runs_through_both_views_of_a_part() -> None:
    model = rlawrap.apply(TwoViews(), at="body", k=4).train()
    random_rla(model.body)
    first, second = model(IMAGE)
    with rlawrap.disabled(model):
        without, _ = model(IMAGE)
    assert torch.equal(first, second)
    assert relative(first, without) > 1e-3


def test_what_eval_mode_alone_computes_is_no_block() -> None:
    plan = rlawrap.inspect(Refined())
    assert [b.path for b in plan.blocks] == ["body.1", "body.2", "body.3"]
    assert dict(plan.left_out)["refine"] == "eval mode alone computes it"
    base = Refined()
    model = rlawrap.apply(base, k=4)
    assert torch.allclose(model.eval()(IMAGE), base.eval()(IMAGE), atol=1e-6)
    assert torch.allclose(model.train()(IMAGE), base.train()(IMAGE), atol=1e-6)


def test_where_no_part_can_be_rewritten_alone_it_warns() -> None:
    with pytest.warns(rlawrap.RLAWarning, match="2 times in training .* without h"):
        plan = rlawrap.inspect(Spread())
    assert [b.path for b in plan.blocks] == ["one_block", "other"]


def test_blocks_of_eval_mode_alone_are_refused() -> None:
    class Away(Net):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(F.pad(x, (0, 0, 0, 0, 0, 9)).mean((2, 3)))
            return out if self.training else self.one(x)

    with pytest.raises(rlawrap.PlanError, match=r"blocks in eval mode alone.*at='body'"):
        rlawrap.apply(Away())


def test_a_layer_of_eval_mode_alone_is_no_head() -> None:
    base = Refined()
    base.refine = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.Tanh())
    model = rlawrap.apply(base, k=4)
    assert model.plan.head == ("fc",)
    assert relative(model.eval()(IMAGE), base.eval()(IMAGE)) < 1e-6
    random_rla(model).train()(IMAGE).sum().backward()
    head = [p for name, p in model.named_parameters() if name.startswith("rla.head.")]
    assert head and all(p.grad is not None and p.grad.any() for p in head)
