"""Children that measure: started one after the other, their rows put into the results."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.speed import machine, store
from benchmarks.speed.cells import Cell, grouped
from benchmarks.speed.child import Request
from benchmarks.speed.timing import pooled, summary

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """seconds: for the rounds of a group of cells; target_seconds: of one row with a target, in
    `processes` of them. Where a process lays its tensors decides ratios by a few hundredths."""

    seconds: float = 12
    target_seconds: float = 90
    processes: int = 3
    least: int = 3
    most: int = 40
    timeout: float = 1800

    def of(self, cell: Cell) -> tuple[int, float, int]:
        """Processes, seconds for the rounds of each, and the least number of rounds of each."""
        if cell.target:
            return self.processes, self.target_seconds / self.processes, self.least
        return 1, self.seconds, self.least


class Failed(Exception):
    """A child ended without figures."""


def ask(request: Request, heap: str, timeout: float, module: str = "child") -> Any:
    """What a child answers. Raises `Failed` with the last line of what it said."""
    command = [sys.executable, "-m", f"benchmarks.speed.{module}", request.to_json()]
    environment = machine.environment(heap, request.threads)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"stopped after {timeout:.0f} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise Failed(lines[-1][:500])
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(
    cells: list[Cell], request: Request, timeout: float, processes: int = 1
) -> list[dict[str, Any]]:
    """Figures of a group of cells, or rows that say why there are none."""
    try:
        if cells[0].treatment == "memory":
            return [_memory_row(cells[0], request, timeout)]
        runs = [ask(request, cells[0].heap, timeout) for _ in range(processes)]
    except Failed as error:
        return [{**asdict(cell), "error": str(error)} for cell in cells]
    return [together(list(rows)) for rows in zip(*runs, strict=True)]


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of what several processes measured of one cell."""
    times = pooled([row.pop("times") for row in rows])
    return {
        **rows[0],
        "processes": len(rows),
        "rounds": len(times["base"]),
        "load": max(row["load"] for row in rows),
        "failed": {name: why for row in rows for name, why in row["failed"].items()},
        "variants": summary(times),
    }


def _memory_row(cell: Cell, request: Request, timeout: float) -> dict[str, Any]:
    """Peak memory, each network in a process of its own."""
    names = ["base", "ours"]
    if cell.net in ("resnet50", "resnet101", "mobilenet_v2"):
        names.append("concat")
    peaks = {name: float(ask(replace(request, variant=name), cell.heap, timeout)) for name in names}
    return {
        **asdict(cell),
        "size": request.size,
        "threads": request.threads,
        "device": request.device,
        "variants": {
            name: {"mib": round(peak, 1), "ratio": round(peak / peaks["base"], 4)}
            for name, peak in peaks.items()
        },
    }


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What holds for all cells of a run. jobs: processes at a time; targets are measured alone."""

    size: int = 224
    threads: int = 1
    device: str = "cpu"
    jobs: int = 1
    minutes: float = float("inf")
    again: bool = False


def run(cells: list[Cell], limits: Limits, path: Path, conditions: Conditions) -> None:
    """Measure what the file lacks; rows are in it as soon as they are there.

    After `minutes` nothing more is begun.
    """
    results = store.read(path)
    results["machine"] = machine.describe(conditions.device)
    todo = store.missing(results, [cell.key for cell in cells], conditions.again)
    groups = grouped(cell for cell in cells if cell.key in todo)
    print(f"{len(cells)} cells, {len(todo)} to measure in {len(groups)} processes", flush=True)
    start = time.perf_counter()
    writing = threading.Lock()

    def measure(group: list[Cell]) -> None:
        if time.perf_counter() - start > 60 * conditions.minutes:
            return
        request = _request(group, limits, conditions)
        rows = rows_of(group, request, limits.timeout, limits.of(group[0])[0])
        with writing:
            results["rows"] |= {cell.key: row for cell, row in zip(group, rows, strict=True)}
            store.write(path, results)
            for cell, row in zip(group, rows, strict=True):
                minutes = (time.perf_counter() - start) / 60
                print(f"{minutes:6.1f} min  {cell.key}: {_brief(row)}", flush=True)

    for group in groups:
        if group[0].target:
            measure(group)
    with ThreadPoolExecutor(conditions.jobs) as lanes:
        list(lanes.map(measure, [group for group in groups if not group[0].target]))


def _request(group: list[Cell], limits: Limits, conditions: Conditions) -> Request:
    _, budget, least = limits.of(group[0])
    return Request(
        cells=group,
        size=conditions.size,
        threads=conditions.threads,
        device=conditions.device,
        budget=budget,
        least=least,
        most=limits.most,
    )


def _brief(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"no figure: {row['error']}"
    if row["treatment"] == "memory":
        return ", ".join(f"{n} {v['mib']:.0f} MiB" for n, v in row["variants"].items())
    figures = [f"{n} {v['ms'][1]:.1f} ms ({v['ratio'][1]:.3f})" for n, v in row["variants"].items()]
    return ", ".join([*figures, *(f"{n}: {why}" for n, why in row["failed"].items())])
