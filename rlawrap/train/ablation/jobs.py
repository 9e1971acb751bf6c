"""Running a grid: each run in a process of its own, some at once, all of them stopped together."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from rlawrap.errors import ConfigError, TrainError
from rlawrap.train.ablation.grid import GridRun
from rlawrap.train.process.signals import die_with_parent, handle_stop_signals


def run_grid(runs: Sequence[GridRun], *, jobs: int = 1, output: Path) -> None:
    """Run what is not finished, `jobs` at once, each in a process of its own.

    All networks with the first seed come first, so that a grid stopped early compares them. One at
    a time shows its progress; several write to `output`/logs. Ctrl-C and other stop signals let the
    runs save and stop. Raises `TrainError` at the end when runs failed or were stopped; the same
    call again goes on with them.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs {jobs}: at least one.")
    pending = [run for run in runs if not run.finished]
    print(f"{len(runs)} runs, {len(runs) - len(pending)} finished already", flush=True)
    waiting = sorted(pending, key=lambda run: run.seed)[::-1]
    active: dict[subprocess.Popen[bytes], GridRun] = {}
    failed: list[GridRun] = []
    with ExitStack() as stack:
        stopping = _Stopping(active)
        stack.enter_context(handle_stop_signals(stopping.stop))
        while (waiting and not stopping.asked) or active:
            while waiting and len(active) < jobs and not stopping.asked:
                run = waiting.pop()
                log = _open_log(run, output) if jobs > 1 else None
                if log is not None:
                    stack.callback(log.close)
                active[_start(run, log, jobs)] = run
                print(f"started {run.variant.name} seed {run.seed}", flush=True)
            for process in [p for p in active if p.poll() is not None]:
                run = active.pop(process)
                _say_end(run, process.returncode, len(runs), sum(r.finished for r in runs))
                if process.returncode:
                    failed.append(run)
            time.sleep(0.05)
    if failed:
        raise TrainError(
            f"{len(failed)} of {len(runs)} runs failed: "
            f"{', '.join(run.config.output for run in failed)}. status.json in each says why."
        )
    if any(not run.finished for run in runs):
        raise TrainError("stopped; the same command goes on where the runs are.")


class _Stopping:
    """Asks all active runs to save and stop, when a signal comes."""

    def __init__(self, active: dict[subprocess.Popen[bytes], GridRun]) -> None:
        self.active = active
        self.asked = False

    def stop(self, number: int, frame: object) -> None:
        """The signal handler."""
        self.asked = True
        for process in self.active:
            process.terminate()


def _start(run: GridRun, log: IO[bytes] | None, jobs: int) -> subprocess.Popen[bytes]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # A session of its own: Ctrl-C at the terminal reaches this process only, which passes it on.
    # When this process is killed the run saves and stops, so that no two write to one folder.
    return subprocess.Popen(
        [sys.executable, "-m", "rlawrap.train", *run.arguments()],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT if log is not None else None,
        env={"OMP_NUM_THREADS": str(threads), **os.environ},
        start_new_session=True,
        preexec_fn=functools.partial(die_with_parent, signal.SIGTERM),
    )


def _open_log(run: GridRun, output: Path) -> IO[bytes]:
    path = output / "logs" / f"{run.variant.name}-seed{run.seed}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise TrainError(f"{path}: cannot be written ({error.strerror}).") from error


def _say_end(run: GridRun, code: int, total: int, finished: int) -> None:
    status = run.folder.status()
    state = f"failed with exit code {code}" if code else str(status.get("state", "stopped"))
    best = status.get("best") or {}
    top1 = f", best top-1 {best['top1']:.2f} %" if "top1" in best else ""
    print(f"[{finished}/{total}] {run.variant.name} seed {run.seed}: {state}{top1}", flush=True)
