from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rlawrap.errors import ConfigError
from rlawrap.train import TrainConfig
from rlawrap.train.commands.launch import (
    FAILURE_FILE,
    Launch,
    count_processes,
    has_failed,
    note_end,
    note_failure,
    torchrun_arguments,
)
from rlawrap.train.store.run_folder import RunFolder

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("nproc", ["0", "-1", "two", ""])
def test_a_number_of_processes_that_makes_no_sense(nproc: str) -> None:
    with pytest.raises(ConfigError, match="--nproc"):
        count_processes(nproc)


def test_one_node_meets_on_a_free_port() -> None:
    config = TrainConfig(lr=0.3)
    arguments = torchrun_arguments(config, Launch(nproc="2", max_restarts=5))
    assert arguments[:3] == ["--standalone", "--nproc-per-node=2", "--max-restarts=5"]
    at = arguments.index("--module")
    assert arguments[at + 1 : at + 3] == ["rlawrap.train", "--config"]
    assert TrainConfig.from_dict(json.loads(arguments[at + 3])) == config


def test_several_nodes_meet_at_an_endpoint() -> None:
    how = Launch(nproc="8", nnodes="2:4", endpoint="node0:29400", run_id="job7")
    arguments = torchrun_arguments(TrainConfig(), how)
    assert arguments[:4] == [
        "--nnodes=2:4", "--rdzv-backend=c10d", "--rdzv-endpoint=node0:29400", "--rdzv-id=job7",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="--rdzv-endpoint"):
        torchrun_arguments(TrainConfig(), Launch(nproc="8", nnodes="2"))
    with pytest.raises(ConfigError, match="--nnodes"):
        torchrun_arguments(TrainConfig(), Launch(nproc="8", nnodes="0"))
    with pytest.raises(ConfigError, match="HOST:PORT"):
        torchrun_arguments(TrainConfig(), Launch(nproc="8", endpoint="node0"))


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        endpoint = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"in use.*another port"):
            torchrun_arguments(TrainConfig(), Launch(nproc="1", endpoint=endpoint))


def test_a_status_left_at_running_is_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("running", epoch=3)
    note_end(folder, "process 1 ended with exit code -9")
    ended = {"state": "failed", "epoch": 3, "message": "process 1 ended with exit code -9"}
    assert folder.status() == ended
    note_end(folder, "something else")
    assert folder.status() == ended


def test_sighup_to_the_launcher_saves_in_all_though_nobody_reads(tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "rlawrap.train", "--nproc", "2", "--output", str(output)),
            *("--arch", "cifar_resnet20", "--subset", "400", "--batch-size", "20"),
            *("--image-size", "8", "--epochs", "99", "--workers", "0", "--log-every", "1"),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    next(line for line in process.stdout if "step 3/" in line)
    process.stdout.close()
    process.send_signal(signal.SIGHUP)  # as a terminal that closes does
    process.wait(timeout=120)
    assert (process.returncode, process.stderr.read()) == (0, "")
    process.stderr.close()
    status = RunFolder(output).status()
    assert status["state"] == "stopped"
    assert status["message"] == f"stopped; resume with --output {output} --resume auto"


def test_an_error_that_no_restart_can_cure_is_said_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rlawrap.train", str(tmp_path / "nothing"), "--nproc", "2"),
            *("--output", str(tmp_path / "run"), "--max-restarts", "1"),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    # Gloo of torch 2.9 says on standard output that it is connected.
    said = [line for line in done.stdout.splitlines() if not line.startswith("[Gloo]")]
    assert (done.returncode, said) == (2, [])
    # A process that ends while another still listens makes torch log it: "[W1124 ...".
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[W")]
    # Both processes may say it before torchrun ends the second, but not again after a restart.
    assert 1 <= len(lines) <= 2
    assert [line for line in lines if "nothing: no such folder" not in line] == []
    assert not (tmp_path / "run").exists()


def test_word_of_a_failure_may_hold_any_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAILURE_FILE, str(tmp_path / "failure"))
    assert not has_failed()
    note_failure("caf\udce9: damaged")
    assert has_failed() and (tmp_path / "failure").read_text() == "caf\\xe9: damaged"
