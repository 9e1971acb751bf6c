"""What the trainer costs over a bare PyTorch loop: time and memory, on one model and loader.

    python benchmarks/trainer_overhead.py [--arch NAME] [--steps N] [--pairs N] [--workers N]

Time: blocks of steps of the one and the other take turns in one process (bare first, then the
trainer first, and so on), each on its own copy of the network and with its own loader over the
same images; the overhead is the median of the ratios of neighbouring blocks. A block of the
trainer includes its metrics, its line in the log and its progress display. Both are measured in
wall-clock time and in CPU time; on a machine that does other things as well the latter is the
one to trust.

Memory: the highest resident size of a process that does nothing but the one or the other.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional as F

from rlawrap.train import TrainConfig
from rlawrap.train.data.loader import Batch
from rlawrap.train.loop.progress import Clock, Plain
from rlawrap.train.loop.run import Run
from rlawrap.train.loop.setup import Equipment, set_up
from rlawrap.train.process.processes import Processes
from rlawrap.train.process.signals import StopRequest
from rlawrap.train.store.run_folder import RunFolder

Block = Callable[[int], None]


def endless(equipment: Equipment) -> Iterator[Batch]:
    """The training batches, epoch after epoch."""
    epoch = 0
    while True:
        equipment.sampler.at(epoch=epoch, step=0)
        yield from equipment.train_loader
        epoch += 1


def bare_loop(config: TrainConfig) -> Block:
    """The loop of any tutorial, with the trainer's network, optimiser and loader."""
    equipment = set_up(config, Processes(), None)
    model, optimizer = equipment.model.train(), equipment.stepper.optimizer
    batches = endless(equipment)

    def run(steps: int) -> None:
        for _ in range(steps):
            batch = next(batches)
            loss = F.cross_entropy(model(batch.images), batch.targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def trainer_loop(config: TrainConfig) -> Block:
    """The trainer's own steps."""
    processes = Processes()
    display = Plain()
    display.say = lambda text: None  # type: ignore[method-assign]
    folder = RunFolder(config.output)
    run = Run(config, processes, folder, display, StopRequest(), None)
    run.equipment.train_mode()
    batches = endless(run.equipment)
    clock = Clock()

    def steps(count: int) -> None:
        for _ in range(count):
            if run.position.step == run.steps:
                run.position.epoch, run.position.step = run.position.epoch + 1, 0
            run.train_step(batches, clock)

    return steps


def measure(block: Block, steps: int) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a block."""
    wall, cpu = time.perf_counter(), time.process_time()
    block(steps)
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_memory(kind: str, config: TrainConfig, steps: int) -> float:
    """MiB that a process of its own needs at most."""
    command = [sys.executable, __file__, "--only", kind, "--steps", str(steps)]
    done = subprocess.run(
        [*command, "--config", json.dumps(config.to_dict())],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="cifar_resnet20")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="steps of a block")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of blocks")
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument("--only", choices=["bare", "trainer"], help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            arch=options.arch,
            batch_size=options.batch_size,
            workers=options.workers,
            log_every=options.steps,
            epochs=1000,
            device="cpu",
            output=folder,
        )
        if options.only:
            config = TrainConfig.from_dict(json.loads(options.config)).replace(output=folder)
            loop = bare_loop if options.only == "bare" else trainer_loop
            loop(config)(options.steps)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        blocks = {"bare": bare_loop(config), "trainer": trainer_loop(config)}
        for block in blocks.values():
            block(2)
        ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
        for pair in range(options.pairs):
            order = ["bare", "trainer"] if pair % 2 == 0 else ["trainer", "bare"]
            times = {name: measure(blocks[name], options.steps) for name in order}
            for at, kind in enumerate(ratios):
                ratios[kind].append(times["trainer"][at] / times["bare"][at])
        print(
            f"{options.arch}, batch {options.batch_size}, {options.pairs} pairs of blocks of ",
            end="",
        )
        print(f"{options.steps} steps, {options.workers} loader processes, one thread")
        for kind, values in ratios.items():
            low, _, high = statistics.quantiles(values, n=4)
            print(
                f"  {kind:4} time: {statistics.median(values) - 1:+.2%} "
                f"(quartiles {low - 1:+.2%} to {high - 1:+.2%})"
            )
        memory = {name: peak_memory(name, config, 6) for name in blocks}
        change = memory["trainer"] / memory["bare"] - 1
        print(
            f"  memory: {memory['bare']:.0f} MiB bare, {memory['trainer']:.0f} MiB trainer: "
            f"{change:+.2%}"
        )


if __name__ == "__main__":
    main()
