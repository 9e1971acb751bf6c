"""Start the processes of a run with torchrun's agent, from this process."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from rlawrap import _torch
from rlawrap.errors import ConfigError, TrainError, printable
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.process.signals import heeded_signals
from rlawrap.train.store.resuming import prepare_folder
from rlawrap.train.store.run_folder import RunFolder

#: Names a file in which a process leaves the error that no restart can cure.
FAILURE_FILE = "RLAWRAP_FAILURE_FILE"

#: Seconds that the processes have for their last checkpoint when torchrun is told to stop.
SHUTDOWN_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How many processes to start, and where they meet.

    nproc: processes on this node, "auto" for one per GPU. nnodes: number of nodes, or MIN:MAX.
    endpoint: HOST:PORT of the node where all meet; None for a free port of this machine.
    max_restarts: how often all processes start again after one has failed.
    """

    nproc: str = "auto"
    nnodes: str = "1"
    endpoint: str | None = None
    run_id: str = "rlawrap"
    max_restarts: int = 3


def launch(config: TrainConfig, how: Launch) -> int:
    """Run `python -m rlawrap.train` in many processes; returns the exit code for the shell.

    Stop signals (SIGTERM, SIGHUP, Ctrl-C ...) are passed on to the processes, which save and stop;
    then the exit code is 0. Those that are ignored here are ignored there. Raises `ConfigError` for
    a launch that makes no sense.
    """
    if "RANK" in os.environ:
        raise ConfigError("--nproc within a process that torchrun started. Leave out --nproc.")
    arguments = torchrun_arguments(config, how)
    handled = [number.name for number in heeded_signals()]
    folder = RunFolder(config.output)
    prepare_folder(folder, config, attempt=0)
    try:
        with tempfile.TemporaryDirectory(prefix="rlawrap-") as place:
            os.environ[FAILURE_FILE] = str(Path(place, "failure"))
            end = _torch.run_torchrun(arguments, signals=handled, patience=SHUTDOWN_SECONDS)
    except OSError as error:
        raise TrainError(f"the processes could not meet at {how.endpoint}: {error}.") from error
    finally:
        os.environ.pop(FAILURE_FILE, None)
    if end.signal is not None:
        if folder.status().get("state") in ("stopped", "finished"):
            return 0
        name = signal.Signals(end.signal).name
        note_end(folder, f"ended by {name} without a checkpoint at that moment")
        return 128 + end.signal
    if end.failed_rank is not None:
        note_end(folder, f"process {end.failed_rank} ended with exit code {end.exitcode}")
        return end.exitcode if end.exitcode > 0 else 1
    return 0


def note_end(folder: RunFolder, message: str) -> None:
    """Replace "running" in status.json, which processes that were killed could not do."""
    status = folder.status()
    if status.get("state") == "running":
        folder.write_status(**{**status, "state": "failed", "message": message})


def note_failure(message: str) -> None:
    """Leave word that a restart by torchrun would fail as this process did."""
    if FAILURE_FILE in os.environ:
        Path(os.environ[FAILURE_FILE]).write_text(printable(message), encoding="utf-8")


def has_failed() -> bool:
    """Whether a process of an earlier attempt left such word."""
    return FAILURE_FILE in os.environ and Path(os.environ[FAILURE_FILE]).exists()


def torchrun_arguments(config: TrainConfig, how: Launch) -> list[str]:
    """The command line for torchrun, without "torchrun" itself."""
    count = count_processes(how.nproc)
    if how.max_restarts < 0:
        raise ConfigError(f"--max-restarts {how.max_restarts}: must not be negative.")
    lows = [part for part in how.nnodes.split(":") if part.isdigit() and int(part) > 0]
    if len(lows) != how.nnodes.count(":") + 1 or len(lows) > 2:
        raise ConfigError(f"--nnodes {how.nnodes}: give a number, or MIN:MAX.")
    if how.endpoint is None:
        if how.nnodes != "1":
            raise ConfigError("--nnodes above 1 needs --rdzv-endpoint HOST:PORT, the same for all.")
        meeting = ["--standalone"]
    else:
        check_endpoint(how.endpoint, alone=how.nnodes == "1")
        meeting = [
            f"--nnodes={how.nnodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={how.endpoint}",
            f"--rdzv-id={how.run_id}",
        ]
    return [
        *meeting,
        f"--nproc-per-node={count}",
        f"--max-restarts={how.max_restarts}",
        "--module",
        "rlawrap.train",
        "--config",
        json.dumps(config.to_dict()),
    ]


def count_processes(nproc: str) -> int:
    """The number of processes: as given, or one per GPU, or one."""
    if nproc == "auto":
        return max(1, torch.cuda.device_count())
    if not nproc.isdigit() or int(nproc) < 1:
        raise ConfigError(f"--nproc {nproc}: give at least 1 process, or 'auto' for one per GPU.")
    return int(nproc)


def check_endpoint(endpoint: str, *, alone: bool) -> None:
    """Raise `ConfigError` for an endpoint that cannot be one, or whose port is in use here.

    alone: this node is the only one, so nobody else may have opened the port for this run.
    """
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"--rdzv-endpoint {endpoint}: write HOST:PORT.")
    if not alone:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise ConfigError(
                f"--rdzv-endpoint {endpoint}: {error.strerror}. Choose another port, or leave "
                "the option out to have one chosen."
            ) from error
