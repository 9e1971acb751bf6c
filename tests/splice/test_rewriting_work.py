"""The work of a rewrite grows with the number of blocks, not with its square."""

from __future__ import annotations

import cProfile
import pstats

from torch import Tensor, nn

import rlawrap


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x).relu()


def calls(blocks: int) -> int:
    """How many calls of Python functions it takes to rewrite a chain of blocks."""
    body = nn.Sequential(*(Block() for _ in range(blocks)))
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    profile = cProfile.Profile()
    with profile:
        model = rlawrap.apply(net, k=2)
    assert len(model.rla.plan.blocks) == blocks
    return sum(entry[1] for entry in pstats.Stats(profile).stats.values())  # type: ignore[attr-defined]


def test_the_work_is_linear_in_the_number_of_blocks() -> None:
    calls(2)  # what is imported and cached once
    few, more, most = map(calls, (10, 30, 50))
    assert most - more <= 1.03 * (more - few)
