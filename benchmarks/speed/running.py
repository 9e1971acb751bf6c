"""Children that measure: started one after the other, their rows put into the results."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.speed import machine, store
from benchmarks.speed.cells import Cell, grouped
from benchmarks.speed.child import Request

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """seconds: for the rounds of a group of cells; target_seconds: of one row with a target."""

    seconds: float = 12
    target_seconds: float = 60
    least: int = 3
    most: int = 40
    timeout: float = 1800

    def of(self, cell: Cell) -> tuple[float, int]:
        """Seconds for the rounds and the least number of rounds."""
        if cell.target:
            return self.target_seconds, max(self.least, min(11, self.most))
        return self.seconds, self.least


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


def rows_of(cells: list[Cell], request: Request, timeout: float) -> list[dict[str, Any]]:
    """Figures of a group of cells, or rows that say why there are none."""
    try:
        if cells[0].treatment == "memory":
            return [_memory_row(cells[0], request, timeout)]
        return ask(request, cells[0].heap, timeout)
    except Failed as error:
        return [{**asdict(cell), "error": str(error)} for cell in cells]


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


def run(
    cells: list[Cell],
    limits: Limits,
    path: Path,
    *,
    size: int,
    threads: int,
    device: str,
    again: bool = False,
) -> None:
    """Measure what the file lacks; each group's rows are in it before the next begins."""
    results = store.read(path)
    results["machine"] = machine.describe(device)
    todo = store.missing(results, [cell.key for cell in cells], again)
    groups = grouped(cell for cell in cells if cell.key in todo)
    print(f"{len(cells)} cells, {len(todo)} to measure in {len(groups)} processes", flush=True)
    start = time.perf_counter()
    for number, group in enumerate(groups, 1):
        budget, least = limits.of(group[0])
        limit = {"budget": budget, "least": least, "most": limits.most}
        request = Request(cells=group, size=size, threads=threads, device=device, **limit)
        rows = rows_of(group, request, limits.timeout)
        results["rows"] |= {cell.key: row for cell, row in zip(group, rows, strict=True)}
        store.write(path, results)
        minutes = (time.perf_counter() - start) / 60
        print(f"[{number}/{len(groups)}, {minutes:.1f} min]", flush=True)
        for row in rows:
            print(
                f"  {Cell(**{f: row[f] for f in asdict(group[0])}).key}: {_brief(row)}", flush=True
            )


def _brief(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"no figure: {row['error']}"
    if row["treatment"] == "memory":
        return ", ".join(f"{n} {v['mib']:.0f} MiB" for n, v in row["variants"].items())
    figures = [f"{n} {v['ms'][1]:.1f} ms ({v['ratio'][1]:.3f})" for n, v in row["variants"].items()]
    return ", ".join([*figures, *(f"{n}: {why}" for n, why in row["failed"].items())])
