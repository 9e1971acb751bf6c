"""Where the time goes: operations of a plain network and of ours, told apart by their shapes.

As a module it is a child like `child.py`: it profiles one cell and prints its operations.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Operation and shapes of its inputs -> calls and milliseconds of one run.
Operations = Mapping[str, tuple[float, float]]

#: Kind of work -> what the names of its operations contain; the first that fits.
KINDS = (
    ("convolution", ("conv", "mkldnn_rnn")),
    ("linear", ("addmm", "linear", "mm", "matmul")),
    ("norm", ("norm",)),
    ("tanh, sigmoid", ("tanh", "sigmoid")),
    ("activation", ("relu", "hardtanh", "clamp", "silu", "gelu", "threshold")),
    ("pooling", ("pool", "mean")),
    ("addition, multiplication", ("add", "sub", "mul")),
    ("optimiser", ("_foreach", "zero_")),
    ("copies, concatenation", ("cat", "copy", "clone", "contiguous", "fill", "empty", "narrow")),
)


@dataclass(frozen=True)
class Share:
    """Milliseconds of one kind: of the plain network, and of ours split into base and RLA."""

    kind: str
    plain: float
    base: float
    rla: float


def kind_of(operation: str) -> str:
    """What kind of work an operation is.

    >>> kind_of("aten::mkldnn_convolution"), kind_of("aten::tanh"), kind_of("aten::detach")
    ('convolution', 'tanh, sigmoid', 'other')
    """
    found = (kind for kind, words in KINDS if any(word in operation for word in words))
    return next(found, "other")


def shares(plain: Operations, ours: Operations) -> list[Share]:
    """The time of each kind of work, the longest of RLA first.

    A call of ours with an operation and shapes that the plain network calls as well is the base's,
    as often as that calls it; what is beyond is RLA's.

    >>> shares({"aten::add [8]": (1, 2.0)}, {"aten::add [8]": (2, 6.0)})
    [Share(kind='addition, multiplication', plain=2.0, base=3.0, rla=3.0)]
    """
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for name, (_, ms) in plain.items():
        totals[kind_of(name.split(" ")[0])][0] += ms
    for name, (calls, ms) in ours.items():
        known = min(plain.get(name, (0.0, 0.0))[0] / calls, 1.0)
        total = totals[kind_of(name.split(" ")[0])]
        total[1] += known * ms
        total[2] += (1 - known) * ms
    rows = [Share(kind, *(round(v, 3) for v in total)) for kind, total in totals.items()]
    return sorted(rows, key=lambda row: -row.rla)


def operations(call: Any, runs: int, device: str) -> dict[str, tuple[float, float]]:
    """What one run of a call does, on average over some."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    for _ in range(2):
        call()
    with profile(activities=activities, record_shapes=True) as recorded:
        for _ in range(runs):
            call()
    found = {}
    for event in recorded.key_averages(group_by_input_shape=True):
        time = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        name = f"{event.key} {event.input_shapes}"
        found[name] = (event.count / runs, time / 1e3 / runs)
    return found


def main() -> None:
    import torch

    from benchmarks.speed.child import Request
    from benchmarks.speed.variants import inference_calls, sample, training_calls

    warnings.simplefilter("ignore")
    request = Request.from_json(sys.argv[1])
    torch.set_num_threads(request.threads)
    (cell,) = request.cells
    make = training_calls if cell.mode == "training" else inference_calls
    x = sample(cell.batch, request.size, request.device)
    failed: dict[str, str] = {}
    calls = make(cell.net, [cell.k], cell.treatment, x, failed)
    name = f"{'fused' if cell.treatment == 'folded' else 'ours'} k{cell.k}"
    if name in failed:
        raise RuntimeError(failed[name])
    runs = request.least
    print(json.dumps({n: operations(calls[n], runs, request.device) for n in ("base", name)}))


if __name__ == "__main__":
    main()
