from __future__ import annotations

import pytest
import torch

from rlawrap.train.data.seeding import derive_seed, local_randomness


def test_seeds_differ_by_every_part_and_by_purpose() -> None:
    seeds = {
        derive_seed(purpose, seed, epoch, index)
        for purpose in ("augment", "mix")
        for seed in range(5)
        for epoch in range(5)
        for index in range(20)
    }
    assert len(seeds) == 2 * 5 * 5 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed("augment", 1, 2, 3) == 2509145837294161570


def test_global_state_is_put_back_after_an_error_too() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), local_randomness("test", 1):
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
