"""Linear branches that are added: a block only where there is less of all else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.discover.test_rules import Folding, Inverted, blocks
from tests.nets import Small


class Stacking(Folding):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(torch.stack([self.large(x), self.small(x)]).sum(0)))


class OftenFolding(Folding):
    """Residual or not; its linear branches are no join that tells where h enters."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual, self.last = residual, nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(super().forward(x))
        return x + y if self.residual else y.relu()


class AroundFolding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.conv = Folding(), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.inner(x))


@pytest.mark.parametrize("cls", [Folding, Stacking])
def test_folding_branches_are_no_block_beside_residual_ones(cls: type[nn.Module]) -> None:
    plan = rlawrap.inspect(
        Small(cls(), Inverted(8, 8), Inverted(8, 8)), example_input=torch.zeros(2, 3, 16, 16)
    )
    assert [b.path for b in plan.blocks] == ["body.1", "body.2"]
    assert "fold into one convolution" in dict(plan.left_out)["body.0"]


def test_folding_branches_are_blocks_where_there_is_less_of_all_else() -> None:
    few = [Inverted(8, 8), Inverted(8, 8)]
    assert blocks(Small(Folding(), Folding(), *few)) == ["body.2", "body.3"]
    found = blocks(Small(Folding(), Folding(), Folding(), *few))
    assert found == [f"body.{i}" for i in range(5)]
    plan = rlawrap.inspect(Small(*(OftenFolding(i == 1) for i in range(4))))
    assert [block.branch for block in plan.blocks] == [None, "body.1.last", None, None]
    within = [AroundFolding() for _ in range(3)]
    assert blocks(Small(Folding(), Folding(), *within)) == ["body.2", "body.3", "body.4"]


def test_folding_branches_are_blocks_where_there_is_nothing_else() -> None:
    assert blocks(Small(Folding(), Folding(), Folding())) == ["body.0", "body.1", "body.2"]


def test_what_is_not_known_to_be_linear_makes_a_block() -> None:
    class Odd(Folding):
        """Its branches are added behind a function that nobody listed."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.large(torch.erf(x)) + self.small(x))

    class Scaled(Folding):
        """One branch has a learned scale."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.large(x) * self.scale + self.small(x) / 2)

    assert blocks(Small(Odd(), Inverted(8, 8), Odd(), Inverted(8, 8))) == [
        "body.0", "body.1", "body.2", "body.3",
    ]  # fmt: skip
    assert blocks(Small(Scaled(), Inverted(8, 8), Scaled(), Inverted(8, 8))) == ["body.1", "body.3"]
