"""Rule 2: a block that stands once beside a convolution is no wrapper, and hides no other block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rlawrap
from tests.nets import Small

IMAGE = torch.zeros(2, 3, 16, 16)


class Adding(nn.Module):
    """A residual block as super-resolution networks write it: `x + self.body(x)`."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def beside(width: int = 8, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(8, width, 3, stride, 1), Adding(width))


def trunk(length: int) -> nn.Sequential:
    return nn.Sequential(*(Adding() for _ in range(length)))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ((beside(), trunk(3)), ["0.1", "1.0", "1.1", "1.2"]),
        ((trunk(3), nn.Sequential(Adding(), nn.Conv2d(8, 8, 1))), ["0.0", "0.1", "0.2", "1.0"]),
        ((beside(), beside(8, 2), trunk(3)), ["0.1", "1.1", "2.0", "2.1", "2.2"]),
        ((beside(), nn.Sequential(*beside(), Adding())), ["0.1", "1.1", "1.2"]),
    ],
    ids=["head", "tail", "two", "encoder"],
)
def test_a_block_beside_a_convolution_is_one_of_its_class(
    body: tuple[nn.Module, ...], expected: list[str]
) -> None:
    plan = rlawrap.inspect(Small(*body), example_input=IMAGE)
    assert [b.path for b in plan.blocks] == [f"body.{path}" for path in expected]
    assert plan.left_out == ()


def test_where_all_stand_beside_a_convolution_each_sequential_is_a_block() -> None:
    plan = rlawrap.inspect(Small(beside(), beside(), beside()), example_input=IMAGE)
    assert [b.path for b in plan.blocks] == ["body.0", "body.1", "body.2"]


def test_wrappers_that_stand_alone_are_blocks_where_they_are_the_most() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Adding()

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.first(x))

    plan = rlawrap.inspect(Small(Halves(), Halves(), trunk(4)), example_input=IMAGE)
    assert [b.path for b in plan.blocks][2:] == [f"body.2.{i}" for i in range(4)]
