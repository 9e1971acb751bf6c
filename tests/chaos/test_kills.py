"""Processes killed at random moments, many times over: `make chaos`.

RLAWRAP_CHAOS_SEED chooses the moments; without it they are new every time.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.train.elastic import kill_one_and_finish
from tests.train.toys import assert_same_run, kill_and_resume, run_group, toy_config

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="asks Linux about processes"),
]

SEED = int(os.environ.get("RLAWRAP_CHAOS_SEED") or random.SystemRandom().randrange(10**6))


@pytest.mark.parametrize("round_number", range(2))
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_killed_again_and_again_is_bit_equal(tmp_path: Path, world: int, round_number: int) -> None:
    seed = 100 * SEED + 10 * world + round_number
    hits = kill_and_resume(tmp_path, world, seed, kills=4, epochs=8, save_every=3)
    print(f"seed {SEED}: {hits} of 4 kills hit {world} processes in training")
    assert hits >= 3


@pytest.mark.parametrize("round_number", range(10))
@pytest.mark.parametrize("static", [False, True], ids=["standalone", "static"])
def test_torchrun_comes_back(tmp_path: Path, static: bool, round_number: int) -> None:
    draw = random.Random(100 * SEED + 10 * static + round_number)
    text = kill_one_and_finish(
        tmp_path / "elastic", static=static, rank=draw.randrange(2), steps=draw.randint(1, 12)
    )
    assert "resumed from" in text, f"seed {SEED}"
    config = toy_config(tmp_path / "whole", epochs=3, save_every=1)
    run_group(2, config, images={"length": 60})
    assert_same_run(tmp_path / "whole", tmp_path / "elastic" / "run")
