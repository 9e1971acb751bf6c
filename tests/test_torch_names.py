"""What `rlawrap._torch` takes for granted of the PyTorch that is installed."""

from __future__ import annotations

import argparse
import inspect
import logging
import signal
import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
from torch import nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import PContext, SignalException
from torch.utils.data import DataLoader, Dataset

from rlawrap import _torch


class Slow(Dataset[int]):
    """Its items take longer than any test waits, or are damaged."""

    def __init__(self, error: bool = False) -> None:
        self.error = error

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        if self.error:
            raise RuntimeError("the server timed out")
        time.sleep(600)
        return index


@pytest.fixture
def loader(request: pytest.FixtureRequest) -> Iterator[DataLoader[int]]:
    made: DataLoader[int] = DataLoader(
        Slow(request.param), num_workers=1, timeout=1, persistent_workers=True
    )
    yield made
    _torch.kill_loader_processes(made)


@pytest.mark.parametrize("loader", [False, True], indirect=True, ids=["slow", "error within"])
def test_a_loader_that_waited_too_long_is_told_from_errors_in_its_processes(
    loader: DataLoader[int], request: pytest.FixtureRequest
) -> None:
    with pytest.raises(RuntimeError) as caught:
        next(iter(loader))
    assert _torch.is_loader_timeout(caught.value) == ("slow" in request.node.callspec.id)


@pytest.mark.parametrize("loader", [False], indirect=True)
def test_loader_processes_end_at_once_though_they_hang(loader: DataLoader[int]) -> None:
    workers = iter(loader)._workers  # type: ignore[attr-defined]
    _torch.kill_loader_processes(loader)
    for worker in workers:
        worker.join(10)
    assert [worker.exitcode for worker in workers] == [-9]
    _torch.kill_loader_processes(loader)  # and again, which does nothing


def test_torchrun_passes_signals_on_and_waits_for_the_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def agent(options: argparse.Namespace) -> None:
        seconds = inspect.signature(PContext.close).parameters["timeout"].default
        assert getattr(options, "shutdown_timeout", seconds) == 7
        assert options.training_script == "x.py"
        if hasattr(options, "signals_to_handle"):
            assert options.signals_to_handle == "SIGUSR1,SIGUSR2"
            raise SignalException("as torchrun does", sigval=signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR2)

    monkeypatch.setattr(torchrun, "run", agent)
    monkeypatch.setattr(logging.getLogger("torch.distributed"), "setLevel", lambda level: None)
    monkeypatch.setenv("LOGLEVEL", "CRITICAL")
    monkeypatch.setattr(PContext.close, "__defaults__", PContext.close.__defaults__)
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    try:
        end = _torch.run_torchrun(["x.py"], signals=["SIGUSR1", "SIGUSR2"], patience=7)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert end == _torch.TorchrunEnd(signal=signal.SIGUSR2)


def test_a_port_in_use_is_told_from_a_peer_that_does_not_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError) as caught:
            TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    assert _torch.is_port_in_use(caught.value)
    with pytest.raises(RuntimeError) as caught:
        TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=1))
    assert not _torch.is_port_in_use(caught.value)


def test_the_first_line_of_an_error_without_gloos_place() -> None:
    error = RuntimeError("[/pytorch/gloo/pair.cc:534] Connection closed by peer [::1]:5\nC++ stack")
    assert _torch.is_lost_peer(error)
    assert _torch.without_source_line(error) == "Connection closed by peer [::1]:5"
    assert _torch.first_line(MemoryError()) == "MemoryError"
    assert not _torch.is_lost_peer(RuntimeError("shape '[3]' is invalid"))


def test_all_batch_and_instance_norms_are_of_one_class() -> None:
    for norm in (
        nn.BatchNorm2d(1),
        nn.SyncBatchNorm(1),
        nn.LazyBatchNorm1d(),
        nn.InstanceNorm3d(1),
    ):
        assert isinstance(norm, _torch.NormBase)
    assert not isinstance(nn.LayerNorm(1), _torch.NormBase)


def test_averages_move_towards_their_values() -> None:
    average, value = torch.tensor([0.0, 2.0]), torch.tensor([4.0, 2.0])
    _torch.lerp_all([average], [value], 0.25)
    assert average.tolist() == [1.0, 2.0]
