"""What the survey measures of modules that are called several times."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import Double


class Pair(nn.Module):
    """Two images through one encoder; the deepest map of one of them is not used."""

    def __init__(self, used: int) -> None:
        super().__init__()
        self.used = used
        self.first, self.second, self.third = Double(3, 8), Double(8, 8), Double(8, 16)
        self.fc = nn.Linear(24, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        shallow = [self.second(self.first(x)) for x in (a, b)]
        deep = [self.third(x) for x in shallow]
        means = [deep[self.used].mean((2, 3)), (shallow[0] - shallow[1]).abs().mean((2, 3))]
        out: Tensor = self.fc(torch.cat(means, 1))
        return out


@pytest.mark.parametrize(("used", "call"), [(0, ""), (1, "#1")])
def test_a_module_counts_by_its_first_call_that_is_used(used: int, call: str) -> None:
    image = torch.randn(2, 3, 16, 16)
    plan = rlawrap.inspect(Pair(used), example_input=(image, image))
    paths = [b.path for b in plan.blocks]
    assert sorted(paths) == sorted(["first", "second", "first#1", "second#1", f"third{call}"])
