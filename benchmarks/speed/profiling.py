"""Which cells are profiled, and their profiles in the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.speed import store
from benchmarks.speed.cells import Cell
from benchmarks.speed.child import Request
from benchmarks.speed.running import Failed, ask
from benchmarks.speed.store import Results
from benchmarks.speed.targets import TARGETS, met, reached

VARIANT = {"eager": "ours", "folded": "fused"}


def excess(row: dict[str, Any]) -> float:
    """How far the time of a row goes beyond its arithmetic; nothing where it has no figure."""
    variant = row.get("variants", {}).get(VARIANT.get(row["treatment"], ""))
    return 0.0 if variant is None else variant["ratio"][1] - row["macs_ratio"]


def to_profile(results: Results) -> list[Cell]:
    """The slowest cell of each way to run, and the missed targets that a profile can explain.

    Compiled networks have kernels of their own on both sides, which cannot be told apart.
    """
    cells: dict[str, Cell] = {}
    for target in TARGETS:
        ratio = reached(results, target)
        if target.treatment in VARIANT and ratio is not None and not met(ratio[1], target):
            cells[target.key()] = _cell(results["rows"][target.key()])
    rows = [row for row in results["rows"].values() if row["heap"] == "kept"]
    for mode, treatment in (("inference", "eager"), ("inference", "folded"), ("training", "eager")):
        same = [r for r in rows if (r["mode"], r["treatment"]) == (mode, treatment)]
        if same:
            slowest = _cell(max(same, key=excess))
            cells[slowest.key] = slowest
    return list(cells.values())


def _cell(row: dict[str, Any]) -> Cell:
    return Cell(**{name: row[name] for name in Cell.__dataclass_fields__})


def profile(path: Path, *, size: int, threads: int, device: str) -> None:
    """Profile what `to_profile` names, in processes of their own, and keep it in the results."""
    results = store.read(path)
    results["profiles"] = {}
    for cell in to_profile(results):
        print(f"profile {cell.key}", flush=True)
        request = Request(
            cells=[cell], size=size, threads=threads, device=device, budget=0, least=5, most=5
        )
        try:
            results["profiles"][cell.key] = ask(request, cell.heap, 900, "profiled")
        except Failed as error:
            print(f"  no profile: {error}", flush=True)
        store.write(path, results)
