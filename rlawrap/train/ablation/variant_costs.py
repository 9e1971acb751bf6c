"""What the networks of a grid cost: parameters and MACs, counted, and latency, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlawrap.cost import cost
from rlawrap.train.ablation.grid import GridRun, Variant
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.network.build import build_model, input_channels
from rlawrap.train.store.json_files import read_json, write_json
from rlawrap.train.tasks.classification import open_images


@dataclass(frozen=True, kw_only=True)
class VariantCost:
    """What a network of the grid costs: exact params and MACs per image, measured latency.

    latency_ms: milliseconds for one image on one CPU thread in evaluation mode, see `time_forward`.
    """

    params: int
    macs: int
    latency_ms: float


def measure(config: TrainConfig, *, seconds: float = 1.0) -> VariantCost:
    """Cost of the network of a run for the images of its data; timed for that many seconds."""
    images = open_images(config, "test")
    bare = config.replace(finetune=None, pretrained_conv1=None, pretrained=False, freeze=())
    with torch.random.fork_rng(devices=[]):
        model = build_model(bare, len(images.classes)).eval()
    image, _ = images.load(0, seed=0, epoch=0)
    shape = (1, input_channels(model, lambda: image), *image.shape[1:])
    total = cost(model, shape[2:]).total
    latency = 1e3 * time_forward(model, torch.zeros(shape), seconds=seconds)
    return VariantCost(params=total.params, macs=total.macs, latency_ms=round(latency, 3))


def time_forward(model: nn.Module, x: Tensor, *, seconds: float = 1.0) -> float:
    """Median seconds of a forward on one CPU thread, of a hundred or all that fit in `seconds`.

    The time is what this thread spent computing, so other programs on the machine disturb little.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times: list[float] = []
    try:
        with torch.no_grad():
            for _ in range(3):
                model(x)
            end = time.perf_counter() + seconds
            while not times or (len(times) < 100 and time.perf_counter() < end):
                start = time.thread_time()
                model(x)
                times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(times)


def measured_costs(runs: Sequence[GridRun], file: Path) -> dict[Variant, VariantCost]:
    """Costs of all variants; measured once and kept in a JSON file."""
    kept: dict[str, Any] = read_json(file) if file.is_file() else {}
    costs = {}
    for run in runs:
        if run.variant in costs:
            continue
        if run.variant.name not in kept:
            kept[run.variant.name] = asdict(measure(run.config))
            write_json(file, kept)
        costs[run.variant] = VariantCost(**kept[run.variant.name])
    return costs
