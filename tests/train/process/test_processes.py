from __future__ import annotations

import pytest
import torch

from rlawrap.errors import ConfigError, TrainError
from rlawrap.train.process.processes import (
    Processes,
    choose_device,
    join_processes,
    sum_type,
)
from tests.train.toys import free_port


def test_alone_everything_is_its_own() -> None:
    processes = Processes()
    assert processes.first
    assert processes.agree([3, 0]) == [3, 0]
    assert processes.gather("a") == ["a"]
    assert processes.share("a") == "a"
    assert processes.share_bytes(bytearray(b"ab")) == b"ab"
    assert processes.sum(torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(TrainError, match="no"):
        processes.first_does(_fail)


def _fail() -> None:
    raise TrainError("no")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2"),
        ({"WORLD_SIZE": "two"}, "not a whole number"),
        ({"WORLD_SIZE": "2"}, "torchrun"),
    ],
)
def test_an_environment_that_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words), join_processes("cpu"):
        pass


def test_a_port_in_use_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = str(other.getsockname()[1])
        variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for name, value in {**variables, "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(TrainError, match="another port"), join_processes("cpu", timeout=5):
            pass


def test_who_does_not_come_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**variables, "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainError, match="could not meet"), join_processes("cpu", timeout=1):
        pass


def test_a_device_of_another_kind() -> None:
    with pytest.raises(ConfigError, match="device='tpu': choose one of auto, cpu, cuda, mps"):
        choose_device("tpu", 0)


def test_apples_gpu_is_taken_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no Apple GPU"):
        choose_device("mps", 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps", 0) == torch.device("mps")
    assert sum_type(torch.device("mps")) == torch.float32  # it has no double precision
    with pytest.raises(ConfigError, match="one process"):
        choose_device("mps", 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there() -> None:
    assert choose_device("auto", 0) == torch.device("cpu")
    with pytest.raises(ConfigError, match="--device cpu"):
        choose_device("cuda", 0)
