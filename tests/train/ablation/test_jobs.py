from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlawrap.errors import ConfigError, TrainError
from rlawrap.train.ablation import jobs
from rlawrap.train.ablation.grid import GridRun, Variant, make_grid
from rlawrap.train.ablation.jobs import run_grid
from tests.train.ablation.tiny import tiny


def test_runs_are_run_skipped_and_failures_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make_grid(tiny(tmp_path), ks=[0, 4], seeds=1)
    bad = make_grid(tiny(tmp_path / "bad", data=str(tmp_path / "no data")), ks=[0], seeds=1)
    with pytest.raises(TrainError, match=r"1 of 3 runs failed: .*bad/plain/seed0"):
        run_grid([bad[0], *runs], jobs=3, output=tmp_path)
    assert [run.finished for run in runs] == [True, True]
    assert "no such folder" in (tmp_path / "logs" / "plain-seed0.log").read_text()
    assert "conv-output-k4 seed 0: finished, best top-1" in capfd.readouterr().out

    def refuse(*arguments: object) -> None:
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(jobs, "_start", refuse)
    run_grid(runs, output=tmp_path)
    assert "2 runs, 2 finished already" in capfd.readouterr().out
    with pytest.raises(ConfigError, match="--jobs 0"):
        run_grid(runs, jobs=0, output=tmp_path)


def test_a_stop_saves_the_runs_and_leaves_no_process(tmp_path: Path) -> None:
    options = ["--arch", "cifar_resnet20", "--k", "0", "4", "--seeds", "1", "--epochs", "500"]
    options += ["--subset", "64", "--image-size", "16", "--workers", "0", "--output", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "rlawrap.cli", "ablate", *options, "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    run_folders = [tmp_path / name / "seed0" for name in ("plain", "conv-output-k4")]
    while not all((folder / "best.json").is_file() for folder in run_folders):
        assert process.poll() is None
        time.sleep(0.1)
    children = _children(process.pid)
    assert len(children) == 2
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.strip().endswith("stopped; the same command goes on where the runs are.")
    for folder in run_folders:
        assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def _children(parent: int) -> list[int]:
    listing = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    return [int(line) for line in listing.stdout.split()]


def test_all_networks_of_a_seed_come_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(run: GridRun, log: object, jobs: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])

    monkeypatch.setattr(jobs, "_start", fail)
    with pytest.raises(TrainError, match="4 of 4 runs failed"):
        run_grid(make_grid(tiny(tmp_path), ks=[0, 4], seeds=2), output=tmp_path)
    started = [line[8:] for line in capsys.readouterr().out.splitlines() if line[:7] == "started"]
    assert started == [
        f"{name} seed {seed}" for seed in (0, 1) for name in ("plain", "conv-output-k4")
    ]


def test_threads_are_shared_among_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    class Started(Exception):
        pass

    def popen(command: list[str], *, env: dict[str, str], **options: object) -> None:
        seen.append(env)
        raise Started

    run = GridRun(variant=Variant(k=0), seed=0, config=tiny(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with pytest.raises(Started):
        jobs._start(run, None, jobs=4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with pytest.raises(Started):
        jobs._start(run, None, jobs=4)
    assert [env["OMP_NUM_THREADS"] for env in seen] == ["2", "3"]
