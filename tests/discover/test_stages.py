"""Stages are runs of one resolution; each block reads the state that fits its size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlawrap

IMAGE = torch.zeros(2, 3, 32, 32)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.short = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        return F.relu(y + (x if self.short is None else self.short(x)))


def classifier(*body: nn.Module, last: int) -> nn.Module:
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 4))


def plain() -> nn.Module:
    return classifier(
        nn.Conv2d(3, 8, 3, padding=1), Block(8, 8), Block(8, 16, 2), Block(16, 16),
        Block(16, 32), Block(32, 64, 2), last=64,
    )  # fmt: skip


class Parallel(nn.Module):
    """Two branches of different resolution that are fused at the end, as in HRNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, 2, 1)
        self.high = nn.Sequential(Block(8, 8), Block(8, 8))
        self.low = nn.Sequential(Block(8, 8), Block(8, 8))
        self.last = nn.Sequential(Block(8, 8), Block(8, 8))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        low = self.low(self.down(x))
        high = self.high(x)
        x = self.last(high + F.interpolate(low, size=high.shape[-2:]))
        return self.fc(x.mean((2, 3)))


def test_stages_are_runs_of_one_resolution() -> None:
    plan = rlawrap.inspect(plain(), example_input=IMAGE)
    assert [[b.path for b in s.blocks] for s in plan.stages] == [["1"], ["2", "3", "4"], ["5"]]
    assert [s.size for s in plan.stages] == [(32, 32), (16, 16), (8, 8)]
    assert [b.stride for b in plan.blocks] == [1, 2, 1, 1, 2]
    assert [b.after for b in plan.blocks] == [None, 0, 1, 2, 3]


def test_dilated_stages_keep_their_resolution() -> None:
    dilated = Block(8, 16)
    dilated.conv1 = nn.Conv2d(8, 16, 3, padding=2, dilation=2)
    net = classifier(nn.Conv2d(3, 8, 3, padding=1), Block(8, 8), dilated, Block(16, 16), last=16)
    plan = rlawrap.inspect(net, example_input=IMAGE)
    assert [len(s.blocks) for s in plan.stages] == [3]


def test_parallel_branches_read_the_latest_state_that_fits() -> None:
    plan = rlawrap.inspect(Parallel(), example_input=IMAGE)
    after = {b.path: b.after for b in plan.blocks}
    order = [b.path for b in plan.blocks]
    assert order == ["low.0", "low.1", "high.0", "high.1", "last.0", "last.1"]
    assert after["low.1"] == order.index("low.0")
    assert after["high.1"] == order.index("high.0")
    assert after["last.0"] == order.index("high.1")


def test_a_rewritten_network_with_parallel_branches_computes_the_same() -> None:
    base = Parallel().eval()
    model = rlawrap.apply(base, k=2, example_input=IMAGE).eval()
    x = torch.randn(1, 3, 33, 30)
    assert torch.equal(model(x), base(x))


def test_stages_by_count_and_by_glob() -> None:
    by_count = rlawrap.inspect(plain(), stages=[2, 3], example_input=IMAGE)
    assert [[b.path for b in s.blocks] for s in by_count.stages] == [["1", "2"], ["3", "4", "5"]]
    by_glob = rlawrap.inspect(plain(), stages=["[12]", ["3", "4", "5"]], example_input=IMAGE)
    assert [[b.path for b in s.blocks] for s in by_glob.stages] == [["1", "2"], ["3", "4", "5"]]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([2, 2], "makes 4 blocks, the network has 5"),
        ([5, 0], "at least one block"),
        (["[12]"], "0 of them name block '3'"),
        (["*", "3"], "2 of them name block '3'"),
        (["*", "9"], "names no block"),
        (["[345]", "[12]"], "does not follow the order"),
        ([1.5], "neither a number of blocks, a glob nor a list of paths"),
    ],
)
def test_stages_that_do_not_fit_are_refused(stages: list[object], message: str) -> None:
    with pytest.raises(rlawrap.PlanError, match=message.replace("*", r"\*")):
        rlawrap.inspect(plain(), stages=stages, example_input=IMAGE)  # type: ignore[arg-type]
