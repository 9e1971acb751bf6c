"""Toy networks and images for tests of the trainer, and runs of it in several processes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.errors import RLAError
from rlawrap.models import model_registry as registry
from rlawrap.train import TrainConfig
from rlawrap.train.data.dataset import SKIPPED
from rlawrap.train.data.seeding import local_randomness
from rlawrap.train.store import checkpoint
from rlawrap.train.store.metrics import CLOCK_FIELDS
from tests.forks import forks

CLASSES = ("a", "b", "c", "d")


class ToyImages:
    """Images [3, 8, 8] whose mean tells their class, with noise from (seed, epoch, index).

    log: a file that gets a line "epoch index" for each image loaded.
    bad: index -> label to give instead. delay: seconds that an image takes.
    """

    def __init__(
        self,
        length: int = 40,
        *,
        log: Path | None = None,
        bad: dict[int, int] | None = None,
        delay: float = 0.0,
        name: str = "toy",
    ) -> None:
        self.classes = CLASSES
        self.in_channels = 3
        self.length = length
        self.log = log
        self.bad = bad or {}
        self.delay = delay
        self.name = name

    def __len__(self) -> int:
        return self.length

    def load(self, index: int, *, seed: int, epoch: int) -> tuple[Tensor, int]:
        time.sleep(self.delay)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{epoch} {index}\n")
        with local_randomness("toy", seed, epoch, index):
            label = index % len(CLASSES)
            image = torch.randn(3, 8, 8) + label
        if index in self.bad:
            label = self.bad[index]
            if label == SKIPPED:
                image = torch.zeros(3, 8, 8)
        return image, label

    def fingerprint(self) -> str:
        return f"{self.name}-{self.length}"


def toy_net(
    *, num_classes: int = 4, norm: str = "batch", dropout: float = 0.1, scale: float = 1.0
) -> nn.Module:
    """Two convolutions, each with a norm, and a classifier."""

    def norm_of(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(2, channels)

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        norm_of(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        norm_of(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        Scale(scale),
        nn.Linear(16, num_classes),
    )


class Scale(nn.Module):
    """Multiplies; a large factor makes the loss infinite."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@contextlib.contextmanager
def toy_models() -> Iterator[None]:
    """Register `toy` for a while."""
    registry._BUILDERS["toy"] = toy_net
    try:
        yield
    finally:
        del registry._BUILDERS["toy"]


def toy_config(output: Path, **changes: Any) -> TrainConfig:
    """A run of a second: 2 epochs of 5 steps, a checkpoint every 3 steps."""
    values: dict[str, Any] = {
        "arch": "toy",
        "epochs": 2,
        "batch_size": 9,
        "lr": 0.05,
        "workers": 0,
        "log_every": 2,
        "save_every": 3,  # not where metrics are logged, so that sums are pending
        "save_minutes": None,
        "output": str(output),
        "device": "cpu",
        "progress": "none",
        "ema": 0.9,
        "timeout": 30,
    }
    return TrainConfig(**{**values, **changes})


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Group:
    """The processes of one run of the trainer on toy images."""

    def __init__(
        self, world: int, config: TrainConfig, *, images: dict[str, Any] | None = None
    ) -> None:
        context = forks()
        port = free_port()
        self.errors_file = Path(config.output + ".errors")
        self.processes: list[BaseProcess] = [
            context.Process(
                target=_run_rank, args=(rank, world, port, config.to_dict(), images or {})
            )
            for rank in range(world)
        ]
        for process in self.processes:
            process.start()

    def wait(self, timeout: float = 120) -> list[int | None]:
        """Exit codes of all, once they have ended."""
        end = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        self.kill()
        return codes

    def signal(self, number: signal.Signals, ranks: slice = slice(None)) -> None:
        """Send a signal to processes that still run."""
        for process in self.processes[ranks]:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    def errors(self) -> str:
        """What the processes said as they failed."""
        return self.errors_file.read_text() if self.errors_file.is_file() else ""

    def kill(self) -> None:
        """SIGKILL to all, at once."""
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.join()


def _run_rank(
    rank: int, world: int, port: int, values: dict[str, Any], images: dict[str, Any]
) -> None:
    torch.set_num_threads(1)
    if world > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    from rlawrap.train import train

    with toy_models():
        try:
            config = TrainConfig.from_dict(values)
            toys = (ToyImages(**images), ToyImages(10, name="test"))
            train(config, data=toys if config.task == "classification" else None)
        except RLAError as error:
            _note(values, f"rank {rank}: {error}\n")
            os._exit(2)
        except RuntimeError as error:
            _note(values, f"rank {rank}: {error}\n")
            os._exit(1)


def _note(values: dict[str, Any], text: str) -> None:
    with Path(values["output"] + ".errors").open("a") as file:
        file.write(text)


def run_group(world: int, config: TrainConfig, **options: Any) -> None:
    """Train to the end in `world` processes."""
    assert Group(world, config, **options).wait() == [0] * world


def wait_for(condition: Callable[[], bool], timeout: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def kill_and_resume(folder: Path, world: int, seed: int, *, kills: int = 1, **changes: Any) -> int:
    """Compare a run with one whose processes are all killed at random moments and start again.

    Returns how many of the kills hit a run that was training.
    """
    images = {"length": 60, "delay": 0.002}
    changes = {"epochs": 4, "clip": 1.0, **changes}
    whole, killed = folder / "whole", folder / "killed"
    group = Group(world, toy_config(whole, **changes), images=images)
    wait_for((whole / "status.json").is_file)
    began = time.monotonic()
    assert group.wait() == [0] * world
    duration = time.monotonic() - began
    draw = random.Random(seed)
    config = toy_config(killed, resume="auto", **changes)
    hits = 0
    for _ in range(kills):
        (killed / "status.json").unlink(missing_ok=True)
        group = Group(world, config, images=images)
        wait_for((killed / "status.json").is_file)
        time.sleep(draw.uniform(0, 0.7) * duration / kills)
        group.kill()
        hits += -signal.SIGKILL in [process.exitcode for process in group.processes]
    run_group(world, config, images=images)
    assert_same_run(whole, killed)
    return hits


def final_state(output: Path) -> dict[str, Any]:
    """The newest checkpoint's content."""
    return checkpoint.read(checkpoint.saved(output / "checkpoints")[0].path)


def metrics(output: Path) -> list[dict[str, Any]]:
    """The lines of metrics without what depends on the clock."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in CLOCK_FIELDS}
        for line in lines
    ]


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two nested values differ, tensors to the last bit."""
    if isinstance(a, Tensor):
        equal = isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b)
        return [] if equal else [path]
    if isinstance(a, dict) and isinstance(b, dict) and set(a) == set(b):
        return [d for key in a for d in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for n in range(len(a)) for d in differences(a[n], b[n], f"{path}[{n}]")]
    return [] if a == b else [path]


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, average, optimiser, position, sums and metrics are equal to the last bit."""
    first, second = final_state(a), final_state(b)
    for state in (first, second):
        del state["config"], state["metrics_size"]
    assert differences(first, second) == []
    assert metrics(a) == metrics(b)
