from __future__ import annotations

from typing import Any

import pytest
import torch

from rlawrap.errors import DataError
from rlawrap.train.data.sampler import Part, TrainSampler, step_parts
from rlawrap.train.data.samples import Samples, stack


class Numbers:
    """Images whose target is their number; some are damaged."""

    def __init__(self, *bad: int) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 5

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[torch.Tensor, Any]:
        return torch.zeros(1, 2, 2), None if index in self.bad else float(index)


def part(*rows: int, padding: int = 0) -> Part:
    return Part(epoch=0, step=0, rows=rows, padding=padding, batch_rows=4, lead=0)


def test_damaged_images_and_padding_are_left_out() -> None:
    batch = Samples(Numbers(1), stack)[part(0, 1, 3)]
    assert batch.targets.tolist() == [0.0, 3.0] and batch.weights.tolist() == [1.0, 1.0]
    assert (batch.counted, batch.batch_rows, batch.skipped) == (2, 4, [1])
    assert Samples(Numbers(), stack)[part(0, 2, padding=1)].targets.tolist() == [0.0]


def test_a_part_without_an_image_has_one_of_weight_0() -> None:
    batch = Samples(Numbers(1, 2), stack)[part(1, 2)]
    assert batch.targets.tolist() == [3.0] and batch.weights.tolist() == [0.0]
    assert (batch.counted, batch.skipped) == (0, [1, 2])
    with pytest.raises(DataError, match="all of them are broken"):
        Samples(Numbers(0, 1, 2, 3, 4), stack)[part(1)]


def test_networks_that_can_do_with_one_image_get_single_ones() -> None:
    order = torch.arange(5)
    lone = [step_parts(order, epoch=0, step=step, batch_size=2, least=1) for step in range(3)]
    assert [parts[0].rows for parts in lone] == [(0, 1), (2, 3), (4,)]
    own = [
        step_parts(order, epoch=0, step=0, batch_size=2, rank=rank, world=2, least=1)[0]
        for rank in range(2)
    ]
    assert [each.rows for each in own] == [(0,), (1,)] and not any(each.padding for each in own)
    sampler = TrainSampler(
        5, seed=0, batch_size=2, least=1, order=lambda seed, epoch: order.flip(0)
    )
    assert sampler.steps == 3 and [part.rows for part in sampler] == [(4, 3), (2, 1), (0,)]
