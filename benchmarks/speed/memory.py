"""Peak memory of a process while a call runs."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.speed.timing import Call

STATUS = Path("/proc/self/status")


def _status(field: str) -> float:
    """MiB of one field of the process's status."""
    line = next(t for t in STATUS.read_text().splitlines() if t.startswith(field + ":"))
    return int(line.split()[1]) / 1024


def resident() -> float:
    """MiB that the process holds now; on a GPU see `peak_above`."""
    return _status("VmRSS")


def peak_above(before: float, call: Call, device: str, times: int = 3) -> float:
    """MiB above `before` that the process holds at most while the call runs a few times."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    for _ in range(times):
        call()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        return _status("VmHWM") - before
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
