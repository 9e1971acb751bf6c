from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlawrap.train.data.sampler import TrainSampler, batch_of_step, step_parts, steps_per_epoch
from rlawrap.train.data.scenes.grouping import grouped_order

GROUPS = st.lists(st.integers(0, 3), min_size=1, max_size=60)


@given(groups=GROUPS, batch_size=st.integers(1, 9), epoch=st.integers(0, 3))
def test_batches_are_of_one_group_and_every_scene_comes_once(
    groups: list[int], batch_size: int, epoch: int
) -> None:
    order = grouped_order(groups, seed=1, epoch=epoch, batch_size=batch_size)
    assert sorted(order.tolist()) == list(range(len(groups)))
    batches = order.split(batch_size)
    whole = sum(groups.count(group) // batch_size for group in set(groups))
    for batch in batches[:whole]:
        assert len({groups[n] for n in batch.tolist()}) == 1
    assert len(batches) - whole <= len(set(groups))
    again = grouped_order(groups, seed=1, epoch=epoch, batch_size=batch_size)
    assert torch.equal(order, again)


@given(
    groups=st.lists(st.integers(0, 1), min_size=4, max_size=40),
    batch_size=st.integers(2, 8),
    world=st.integers(1, 4),
    start=st.integers(0, 5),
)
def test_any_number_of_processes_goes_on_at_any_step(
    groups: list[int], batch_size: int, world: int, start: int
) -> None:
    order = grouped_order(groups, seed=0, epoch=2, batch_size=batch_size)
    steps = steps_per_epoch(len(order), batch_size)
    for step in range(min(start, steps), steps):
        rows = [
            row
            for rank in range(world)
            for part in step_parts(
                order, epoch=2, step=step, batch_size=batch_size, rank=rank, world=world
            )
            for row in part.rows[: len(part.rows) - part.padding]
        ]
        assert rows == batch_of_step(order, step=step, batch_size=batch_size)


def test_epochs_and_seeds_differ() -> None:
    groups = [0, 1] * 20
    orders = [
        grouped_order(groups, seed=seed, epoch=epoch, batch_size=4).tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    first = [{groups[n] for n in order[:4]}.pop() for order in orders]
    more = [groups[int(grouped_order(groups, seed=0, epoch=e, batch_size=4)[0])] for e in range(12)]
    assert {*first, *more} == {0, 1}  # batches of both groups come first at times
    assert TrainSampler(len(groups), seed=0, batch_size=4).steps == 10
