"""One measuring process: cells that differ in k alone; prints a JSON row for each, with its times.

Started by `python -m benchmarks.speed` with its heap and threads in the environment.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.speed.cells import Cell
from benchmarks.speed.memory import peak_above, resident
from benchmarks.speed.nets import NETS, macs_ratio, stirred
from benchmarks.speed.timing import cpu_clock, cuda_clock, interleaved, of_k
from benchmarks.speed.transfer import concatenation
from benchmarks.speed.variants import inference_calls, placed, sample, training_calls, training_step


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a child is asked. variant: with treatment "memory", the one network of the process."""

    cells: list[Cell]
    size: int
    threads: int
    device: str
    budget: float
    least: int
    most: int
    variant: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        data = json.loads(text)
        return cls(**{**data, "cells": [Cell(**cell) for cell in data["cells"]]})


def measure(request: Request) -> list[dict[str, Any]]:
    """Rows, one for each cell."""
    first = request.cells[0]
    x = sample(first.batch, request.size, request.device)
    ks = [cell.k for cell in request.cells]
    load = os.getloadavg()[0]
    make = training_calls if first.mode == "training" else inference_calls
    failed: dict[str, str] = {}
    calls = make(first.net, ks, first.treatment, x, failed)
    clock = cuda_clock if request.device == "cuda" else cpu_clock
    limits = {"least": request.least, "most": request.most}
    times = interleaved(calls, clock, budget=request.budget, **limits)
    return [
        {
            **asdict(cell),
            "size": request.size,
            "threads": request.threads,
            "device": request.device,
            "load": round(load, 2),
            "macs_ratio": round(macs_ratio(NETS[cell.net], cell.k, request.size), 4),
            "times": of_k(times, cell.k),
            "failed": {name: why for name, why in failed.items() if name.endswith(f" k{cell.k}")},
        }
        for cell in request.cells
    ]


def peak_memory(request: Request) -> float:
    """MiB that one network needs at most, weights and gradients and momentum included."""
    (cell,) = request.cells
    net, training = NETS[cell.net], cell.mode == "training"
    x = sample(cell.batch, request.size, request.device)
    torch.nn.functional.conv2d(x[:1, :, :9, :9], torch.ones(4, 3, 3, 3, device=request.device))
    # What is needed to make a network is none of its memory.
    name = request.variant
    model = stirred(net.base if name == "base" else lambda: net.ours(cell.k))
    if name == "concat":
        beside = concatenation(cell.net, model)
        assert beside is not None
        model = beside
    model = placed(model, request.device, training)
    if training:
        call = training_step(model, x)
    else:

        def call() -> None:
            with torch.no_grad():
                model(x)

    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    return peak_above(resident() - weights, call, request.device)


def main() -> None:
    warnings.simplefilter("ignore")
    request = Request.from_json(sys.argv[1])
    torch.set_num_threads(request.threads)
    memory = request.cells[0].treatment == "memory"
    print(json.dumps(peak_memory(request) if memory else measure(request)))


if __name__ == "__main__":
    main()
