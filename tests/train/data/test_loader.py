from __future__ import annotations

import pytest
import torch

from rlawrap.errors import DataError
from rlawrap.train.data.dataset import SKIPPED
from rlawrap.train.data.loader import PartDataset, make_loader
from rlawrap.train.data.sampler import TrainSampler, epoch_order, step_parts
from tests.train.toys import ToyImages

CPU = torch.device("cpu")


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_mixing_is_that_of_the_whole_batch(option: str) -> None:
    dataset = PartDataset(ToyImages(20), num_classes=4, seed=3, **{option: 0.5})
    order = epoch_order(20, 3, 1)
    whole = dataset[step_parts(order, epoch=1, step=0, batch_size=9)[0]]
    assert whole.targets.shape == (9, 4)
    torch.testing.assert_close(whole.targets.sum(1), torch.ones(9))
    assert (whole.targets.max(1).values < 1).any()
    pieces = [
        dataset[part]
        for rank in range(3)
        for part in step_parts(order, epoch=1, step=0, batch_size=9, rank=rank, world=3)
    ]
    assert torch.equal(torch.cat([piece.images for piece in pieces]), whole.images)
    assert torch.equal(torch.cat([piece.targets for piece in pieces]), whole.targets)
    other = dataset[step_parts(order, epoch=2, step=0, batch_size=9)[0]]
    assert not torch.equal(other.images, whole.images)


def test_a_skipped_image_counts_for_nothing_nor_does_what_is_mixed_with_it() -> None:
    part = step_parts(torch.arange(20), epoch=0, step=0, batch_size=5)[0]
    images = ToyImages(20, bad={2: SKIPPED})
    plain = PartDataset(images, num_classes=4)[part]
    assert plain.weights.tolist() == [1, 1, 0, 1, 1]
    mixed = PartDataset(images, num_classes=4, mixup=0.5)[part]
    assert mixed.weights.tolist() == [1, 1, 0, 0, 1]
    assert plain.skipped == mixed.skipped == [2]


def test_padding_counts_for_nothing() -> None:
    dataset = PartDataset(ToyImages(20), num_classes=4)
    parts = step_parts(torch.arange(20), epoch=0, step=0, batch_size=1, rank=1, world=2)
    batch = dataset[parts[0]]
    assert batch.weights.tolist() == [0, 0] and batch.counted == 0


def test_a_label_out_of_range_is_named() -> None:
    dataset = PartDataset(ToyImages(20, bad={2: 4}), num_classes=4)
    part = step_parts(torch.arange(20), epoch=0, step=0, batch_size=5)[0]
    with pytest.raises(DataError, match=r"image 2: label 4.*4 classes"):
        dataset[part]


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_random_state_alone(workers: int) -> None:
    sampler = TrainSampler(20, seed=0, batch_size=8)
    dataset = PartDataset(ToyImages(20), num_classes=4, mixup=0.5)
    loader = make_loader(dataset, sampler, workers=workers, prefetch=2, device=CPU)
    before = torch.get_rng_state()
    assert [batch.counted for batch in loader] == [8, 8, 4]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_does_not_come_is_given_up() -> None:
    sampler = TrainSampler(20, seed=0, batch_size=2)
    dataset = PartDataset(ToyImages(20, delay=1.2), num_classes=4)
    loader = make_loader(dataset, sampler, workers=1, prefetch=1, device=CPU, timeout=1)
    with pytest.raises(DataError, match="within 1 seconds"):
        next(iter(loader))
