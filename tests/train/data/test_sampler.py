from __future__ import annotations

import pytest
import torch

from rlawrap.train.data.sampler import (
    EvalSampler,
    Part,
    TrainSampler,
    batch_of_step,
    epoch_order,
    share,
    step_parts,
    steps_per_epoch,
)


def real_rows(part: Part) -> list[int]:
    return list(part.rows[: len(part.rows) - part.padding])


@pytest.mark.parametrize("length", [1, 2, 3, 5, 9, 10, 11, 65])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("accumulate", [1, 3, 4])
def test_every_image_once_whatever_the_processes(length: int, world: int, accumulate: int) -> None:
    batch_size = 4
    order = epoch_order(length, seed=5, epoch=2).tolist()
    seen: list[int] = []
    for step in range(steps_per_epoch(length, batch_size)):
        parts = [
            step_parts(
                torch.tensor(order),
                epoch=2,
                step=step,
                batch_size=batch_size,
                rank=rank,
                world=world,
                accumulate=accumulate,
            )
            for rank in range(world)
        ]
        # All processes take as many parts, or their collectives would not match.
        assert len({len(own) for own in parts}) == 1
        rows = [row for own in parts for part in own for row in real_rows(part)]
        assert rows == batch_of_step(torch.tensor(order), step=step, batch_size=batch_size)
        seen += rows
        for own in parts:
            assert [part.last for part in own] == [False] * (len(own) - 1) + [True]
            for part in own:
                assert part.batch_rows == len(rows)
                # Two different images, all of which count or none.
                assert length == 1 or len(set(part.rows)) == len(part.rows) >= 2
                assert part.padding in (0, len(part.rows)) or length == 1
        assert real_rows(parts[0][0]) != []
    assert seen == order


@pytest.mark.parametrize(("length", "sizes"), [(32, [16, 16]), (33, [16, 17]), (34, [16, 16, 2])])
def test_an_image_left_over_alone_joins_the_batch_before_it(length: int, sizes: list[int]) -> None:
    steps = range(steps_per_epoch(length, 16))
    order = torch.arange(length)
    assert [len(batch_of_step(order, step=step, batch_size=16)) for step in steps] == sizes


def test_accumulation_of_a_whole_batch_cuts_it_into_pairs() -> None:
    parts = step_parts(torch.arange(20), epoch=0, step=0, batch_size=5, accumulate=5)
    assert [part.rows for part in parts] == [(0, 1, 2), (3, 4)]


def test_the_partner_of_a_first_row_is_the_row_before_it_in_the_batch() -> None:
    order = torch.arange(10)
    parts = [
        step_parts(order, epoch=0, step=1, batch_size=5, rank=rank, world=2) for rank in range(2)
    ]
    assert [(p.lead, p.rows) for own in parts for p in own] == [(9, (5, 6, 7)), (7, (8, 9))]


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {tuple(epoch_order(20, s, e).tolist()) for s in range(3) for e in range(3)}
    assert len(orders) == 9
    assert torch.equal(epoch_order(20, 1, 2), epoch_order(20, 1, 2))


def test_from_any_step_on_the_sampler_gives_the_rest() -> None:
    sampler = TrainSampler(23, seed=1, batch_size=4, rank=1, world=2, accumulate=2)
    sampler.at(epoch=3, step=0)
    whole = list(sampler)
    sampler.at(epoch=3, step=2)
    assert list(sampler) == [part for part in whole if part.step >= 2]
    sampler.at(epoch=3, step=6)
    assert list(sampler) == []


@pytest.mark.parametrize("length", [1, 5, 16, 17])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_evaluation_counts_every_image_once(length: int, world: int) -> None:
    samplers = [EvalSampler(length, batch_size=3, rank=rank, world=world) for rank in range(world)]
    parts = [list(sampler) for sampler in samplers]
    assert {len(own) for own in parts} == {len(samplers[0])}
    rows = [row for own in parts for part in own for row in real_rows(part)]
    assert sorted(rows) == list(range(length))


def test_shares_differ_by_one_at_most() -> None:
    for length in range(20):
        pieces = [share(length, 6, part) for part in range(6)]
        sizes = [stop - start for start, stop in pieces]
        assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)
        assert pieces[0][0] == 0 and pieces[-1][1] == length
