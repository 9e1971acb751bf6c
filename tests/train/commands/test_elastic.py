"""torchrun restarts the processes after one was killed, and leaves none behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.train.elastic import ElasticRun, is_alive, kill_one_and_finish
from tests.train.toys import assert_same_run, run_group, toy_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux about processes")


@pytest.mark.parametrize(
    ("static", "rank"),
    [
        (False, 1),
        # The other rendezvous, with random kills too, is what `make chaos` is about.
        pytest.param(True, 0, marks=pytest.mark.chaos),
    ],
)
def test_a_killed_process_costs_nothing_but_time(tmp_path: Path, static: bool, rank: int) -> None:
    text = kill_one_and_finish(tmp_path / "elastic", static=static, rank=rank, steps=4)
    assert "resumed from" in text
    config = toy_config(tmp_path / "whole", epochs=3, save_every=1)
    run_group(2, config, images={"length": 60})
    assert_same_run(tmp_path / "whole", tmp_path / "elastic" / "run")


def test_no_process_outlives_a_killed_agent(tmp_path: Path) -> None:
    run = ElasticRun(tmp_path / "elastic", 2, static=False, epochs=200)
    try:
        run.wait_for(lambda: run.steps() >= 2)
        pids = run.pids(0)
        assert len(pids) == 2 and all(map(is_alive, pids))
        os.kill(run.agent.pid, signal.SIGKILL)
        run.agent.wait()
        for pid in pids:
            _wait_until_gone(pid)
    finally:
        run.close()


def _wait_until_gone(pid: int) -> None:
    import time

    end = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} is an orphan"
        time.sleep(0.01)
