from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlawrap.errors import ConfigError
from rlawrap.train import TrainConfig
from rlawrap.train.data.arranging import arrange
from rlawrap.train.data.loader import PartDataset
from rlawrap.train.data.sampler import TrainSampler
from tests.train.toys import ToyImages


@pytest.mark.parametrize("length", [5, 23, 24, 25, 26])
@pytest.mark.parametrize("repeats", [2, 3])
def test_a_batch_holds_copies_of_different_images(length: int, repeats: int) -> None:
    slots = arrange(torch.randperm(length), batch_size=6, repeats=repeats)
    assert len(slots) == length and len(set(slots.tolist())) == length
    for start in range(0, length, 6):
        batch = slots[start : start + 6] % length
        assert len(set(batch.tolist())) == min(len(batch), max(2, -(-len(batch) // repeats)))
        if len(batch) > 1:  # mixup takes neighbours, in a circle
            assert all(a != b for a, b in zip(batch, batch.roll(1), strict=True)) or len(batch) % 2


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_same_batches(world: int) -> None:
    def rows(world: int) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for rank in range(world):
            sampler = TrainSampler(
                23, seed=3, batch_size=6, rank=rank, world=world, repeats=2, drop_last=True
            )
            assert (sampler.steps, sampler.slots) == (3, 18)
            for part in sampler:
                real = part.rows[: len(part.rows) - part.padding]
                found.setdefault(part.step, []).extend(real)
        return found

    assert rows(world) == rows(1)


def test_copies_are_augmented_apart_and_the_first_as_ever() -> None:
    images = ToyImages(8)
    sampler = TrainSampler(8, seed=3, batch_size=4, repeats=2)
    part = next(iter(sampler))
    batch = PartDataset(images, num_classes=4, seed=3)[part]
    first, second = part.rows[0], part.rows[2]
    assert second == first + 8
    assert torch.equal(batch.images[0], images.load(first, seed=3, epoch=0)[0])
    assert batch.targets[0] == batch.targets[2]
    assert not torch.equal(batch.images[0], batch.images[2])


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    for repeats in (5, 8):
        with pytest.raises(ConfigError, match=f"repeats={repeats}: batch_size=8"):
            TrainConfig(batch_size=8, repeats=repeats)
    with pytest.raises(ConfigError, match="compile_mode='max-autotune' needs"):
        TrainConfig(compile_mode="max-autotune")
    with pytest.raises(ConfigError, match="ema_every=2 needs ema"):
        TrainConfig(ema_every=2)
