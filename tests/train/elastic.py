"""Runs of the trainer under torchrun, whose processes or agent a test kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tests.train.toys import free_port, toy_config

ROOT = Path(__file__).parents[2]


class ElasticRun:
    """torchrun with `world` processes on one machine, and what a test asks about it."""

    def __init__(self, folder: Path, world: int, *, static: bool, **changes: Any) -> None:
        self.folder = folder
        self.output = folder / "run"
        self.world = world
        folder.mkdir(exist_ok=True)
        config = toy_config(
            self.output, **{"epochs": 3, "save_every": 1, "progress": "plain", **changes}
        )
        (folder / "config.json").write_text(json.dumps(config.to_dict()))
        meeting = (
            ["--nnodes=1", "--rdzv-backend=static", f"--master-port={free_port()}"]
            if static
            else ["--standalone"]
        )
        with (folder / "out").open("w") as out:
            self.agent = self._start(meeting, out)

    def _start(self, meeting: list[str], out: IO[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", *meeting),
                *(f"--nproc-per-node={self.world}", "--max-restarts=3", "--monitor-interval=0.1"),
                *("--module", "tests.train.elastic_worker", str(self.folder)),
            ],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "LOGLEVEL": "CRITICAL"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def pids(self, attempt: int) -> list[int]:
        """Process numbers of an attempt, by rank."""
        found = (self.folder / "pids").glob(f"{attempt}-*")
        return [int(p.name.split("-")[2]) for p in sorted(found)]

    def steps(self) -> int:
        """Lines of metrics so far."""
        log = self.output / "metrics.jsonl"
        return len(log.read_text().splitlines()) if log.is_file() else 0

    def wait_for(self, condition: Callable[[], bool], timeout: float = 120) -> None:
        """Wait until something is so, or fail with the output."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, self.text()
            assert self.agent.poll() is None, self.text()
            time.sleep(0.01)

    def text(self) -> str:
        """What all processes have printed."""
        return (self.folder / "out").read_text()

    def finish(self, timeout: float = 120) -> int:
        """The exit code of torchrun."""
        try:
            return self.agent.wait(timeout)
        except subprocess.TimeoutExpired:
            self.close()
            raise AssertionError("torchrun hangs:\n" + self.text()) from None

    def close(self) -> None:
        """End torchrun if it still runs; its processes end with it."""
        if self.agent.poll() is None:
            self.agent.send_signal(signal.SIGKILL)
        self.agent.wait()


def kill_one_and_finish(folder: Path, *, static: bool, rank: int, steps: int) -> str:
    """Kill a process once there are so many lines of metrics; returns the output of the end."""
    run = ElasticRun(folder, 2, static=static)
    try:
        run.wait_for(lambda: run.steps() >= steps)
        os.kill(run.pids(0)[rank], signal.SIGKILL)
        assert run.finish() == 0, run.text()
        return run.text()
    finally:
        run.close()


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
