"""What a rewrite costs: `inspect` and `apply` on deep networks, and `import rlawrap`.

    python benchmarks/rewrite_cost.py
    python benchmarks/rewrite_cost.py --chains 100 300 1000 --json cost.json

Times are of one process's own CPU, the median of `--rounds`, so that other programs on the machine
count for less. `calls` are calls of Python functions in `inspect` and `apply` together, which no
load changes. The exponent is that of a power of the number of blocks, fitted to the chains: 1 is
linear.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

import rlawrap

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet50": lambda: torchvision.models.resnet50(weights=None),
    "densenet201": lambda: torchvision.models.densenet201(weights=None),
}
#: The import alone, in seconds of the process.
IMPORT = """
import time, torch, torchvision
start = time.process_time()
import rlawrap
print(time.process_time() - start)
"""


def chain(blocks: int) -> nn.Module:
    """A ResNet of basic blocks in four stages, a sixth of them in the wide ones each."""
    wide = blocks // 6
    return ResNet(BasicBlock, [blocks - 3 * wide, wide, wide, wide], num_classes=10)


def measure(net: nn.Module, rounds: int) -> dict[str, Any]:
    """Seconds of `inspect` and of `apply`, medians, and the calls of both."""
    times: dict[str, list[float]] = {"inspect": [], "apply": []}
    for _ in range(rounds):
        start = time.process_time()
        rlawrap.inspect(net)
        between = time.process_time()
        model = rlawrap.apply(net)
        times["inspect"].append(between - start)
        times["apply"].append(time.process_time() - between)
    profile = cProfile.Profile()
    with profile:
        rlawrap.inspect(net)
        rlawrap.apply(net)
    entries = pstats.Stats(profile).stats.values()  # type: ignore[attr-defined]
    return {
        "blocks": len(model.rla.plan.blocks),
        **{verb: round(statistics.median(seconds), 3) for verb, seconds in times.items()},
        "calls": sum(entry[1] for entry in entries),
    }


def exponent(rows: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], float]) -> float:
    """Of which power of the number of blocks a column is, by least squares of the logarithms."""
    points = [(math.log(row["blocks"]), math.log(key(row))) for row in rows]
    slope, _ = statistics.linear_regression(*zip(*points, strict=True))
    return round(slope, 3)


def import_seconds(rounds: int) -> float:
    """What `import rlawrap` adds to the imports of torch and torchvision, in new processes.

    With the bytecode of all modules at hand, as from a second import on.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        own["PYTHONPYCACHEPREFIX"] = folder
        command = [sys.executable, "-c", IMPORT]
        seconds = [
            float(subprocess.check_output(command, text=True, env=own)) for _ in range(rounds + 1)
        ]
    return round(statistics.median(seconds[1:]), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chains", type=int, nargs="*", default=[50, 100, 200])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", rlawrap.RLAWarning)
    rlawrap.apply(torchvision.models.resnet18(weights=None))  # what is found once in a process
    result: dict[str, Any] = {"threads": 1, "import": import_seconds(given.rounds), "networks": {}}
    print(f"import rlawrap: {result['import']} s")
    print(f"{'':<14}{'blocks':>8}{'inspect s':>12}{'apply s':>12}{'calls':>14}")

    def row(name: str, net: nn.Module) -> dict[str, Any]:
        found = measure(net, given.rounds)
        result["networks"][name] = found
        shown = f"{found['blocks']:>8}{found['inspect']:>12}{found['apply']:>12}"
        print(f"{name:<14}{shown}{found['calls']:>14,}", flush=True)
        return found

    for name, build in NETWORKS.items():
        row(name, build())
    chains = [row(f"chain {n}", chain(n)) for n in given.chains]
    if len(chains) > 1:
        result["exponent"] = {
            "seconds": exponent(chains, lambda r: r["inspect"] + r["apply"]),
            "calls": exponent(chains, lambda r: r["calls"]),
        }
        print(f"exponents over the chains: {result['exponent']}")
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
