"""The harness of times: its arithmetic, its tables and its networks; no test asserts a time."""

from __future__ import annotations

import doctest
import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed import cells, running, store, tables
from benchmarks.speed.cells import Cell
from benchmarks.speed.child import Request
from benchmarks.speed.nets import NETS, stirred
from benchmarks.speed.profiled import shares
from benchmarks.speed.profiling import to_profile
from benchmarks.speed.report import PAGE, PARTS, filled
from benchmarks.speed.targets import TARGETS
from benchmarks.speed.timing import interleaved
from benchmarks.speed.transfer import concatenation
from tests.nets import relative


@pytest.mark.parametrize("name", ["cells", "profiled", "report", "tables", "targets", "timing"])
def test_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"benchmarks.speed.{name}"))
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2"])
def test_the_concatenation_network_computes_what_ours_does(name: str) -> None:
    ours = stirred(lambda: NETS[name].ours(8)).double().eval()
    beside = concatenation(name, ours)
    assert beside is not None
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        assert relative(ours(x), beside.double()(x)) < 1e-12
    sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, beside)]
    assert sizes[0] == sizes[1]


def test_rounds_take_turns_and_begin_with_another_call_each_time() -> None:
    told: list[str] = []
    calls = {name: lambda name=name: told.append(name) for name in "abc"}
    now = iter(range(10_000))

    def clock(call: Any) -> float:
        call()
        return float(next(now))

    times = interleaved(calls, clock, budget=1e9, least=1, most=3)
    assert "".join(told) == "abc" + "abc" + "abc" + "bca" + "cab"
    assert times == {"a": [6, 11, 13], "b": [7, 9, 14], "c": [8, 10, 12]}


def test_groups_share_a_base_and_the_targets_come_first() -> None:
    chosen = cells.distinct(cells.target_cells() + cells.matrix_cells())
    groups = cells.grouped(chosen)
    assert {c.key for g in groups for c in g} == {c.key for c in chosen}
    for group in groups:
        assert len({(c.net, c.batch, c.mode, c.treatment, c.heap) for c in group}) == 1
    keys = [cell.key for cell in chosen]
    targets = [target.key(heap) for target in TARGETS for heap in ("kept", "usual")]
    assert sorted(keys.index(key) for key in targets) == list(range(len(targets)))
    timed = [c for c in chosen if c.treatment == "eager" and c.heap == "kept"]
    assert len(timed) == len(cells.NETS) * 4 * 3 * 2


def test_a_request_survives_json() -> None:
    cell = Cell(net="resnet50", k=8, batch=1, mode="training", treatment="eager")
    limits = {"budget": 1.5, "least": 3, "most": 9}
    request = Request(cells=[cell], size=64, threads=1, device="cpu", **limits)
    assert Request.from_json(request.to_json()) == request


def row(cell: Cell, ratio: float) -> dict[str, Any]:
    variant = {"ms": [1.0, 2.0, 3.0], "ratio": [ratio - 0.01, ratio, ratio + 0.01]}
    variants = dict.fromkeys(("base", "ours", "fused", "concat"), variant)
    return {**asdict(cell), "macs_ratio": 1.1, "threads": 1, "load": 0.5, "variants": variants}


def measured(cell: Cell, ratio: float) -> dict[str, Any]:
    """What a child says: the times in place of their summary."""
    told = {name: value for name, value in row(cell, ratio).items() if name != "variants"}
    return told | {"failed": {}, "times": {"base": [1.0, 2.0], "ours": [ratio, 2 * ratio]}}


def results(ratio: float) -> dict[str, Any]:
    chosen = cells.distinct(cells.target_cells() + cells.matrix_cells())
    rows = {c.key: row(c, ratio) for c in chosen if c.treatment != "memory"}
    return {"version": 1, "machine": {"torch": "2"}, "rows": rows, "profiles": {}}


def test_tables_say_what_was_reached_and_what_was_missed() -> None:
    found = results(1.12)
    lines = tables.targets(found).splitlines()[2:]
    assert [line.split(" | ")[-1].strip(" |") for line in lines] == [
        *("yes", "no", "no", "no", "no"),
        *("yes", "yes", "yes", "yes", "yes"),
    ]
    assert "1.120 (1.110 to 1.130)" in lines[0]
    missed = tables.misses(found).splitlines()
    assert missed[0] == "- rla_resnet50, folded on both sides: 1.120, 1.11 was the target."
    assert len(missed) == 4
    assert len(tables.matrix(found).splitlines()) == 2 + 5 * 4 * 3
    assert len(tables.treatments(found).splitlines()) == 2 + 5 * 3
    assert tables.misses(results(1.0)) == "Every target was reached."
    profiled = {cell.key for cell in to_profile(found)}
    assert "resnet50 k32 b8 inference folded kept" in profiled
    assert "resnet50 k32 b8 training eager kept" in profiled
    assert not any("onnx" in key or "frozen" in key for key in profiled)


def test_what_is_beyond_the_plain_network_is_rla() -> None:
    plain = {"aten::conv [1]": (2.0, 4.0), "aten::relu [1]": (1.0, 1.0)}
    ours = {
        "aten::conv [1]": (2.0, 5.0),
        "aten::conv [2]": (3.0, 1.5),
        "aten::relu [1]": (1.0, 1.0),
    }
    kinds = {s.kind: (s.plain, s.base, s.rla) for s in shares(plain, ours)}
    assert kinds == {"convolution": (4.0, 5.0, 1.5), "activation": (1.0, 1.0, 0.0)}


def test_the_page_has_a_place_for_every_part() -> None:
    page = PAGE.read_text(encoding="utf-8")
    new = filled(page, {name: f"text of {name}" for name in PARTS})
    for name in PARTS:
        assert f"<!-- begin {name} -->\n\ntext of {name}\n\n<!-- end {name} -->" in new
    with pytest.raises(ValueError, match="no place for 'nothing'"):
        filled(page, {"nothing": ""})


def test_a_rerun_measures_what_is_missing_and_errors_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(request: Request, heap: str, timeout: float, module: str = "child") -> Any:
        asked.extend(cell.key for cell in request.cells)
        if request.cells[0].batch == 8:
            raise running.Failed("no room")
        return [measured(cell, 1.1) for cell in request.cells]

    monkeypatch.setattr(running, "ask", ask)
    monkeypatch.setattr(running.machine, "describe", lambda device: {"torch": "2"})
    wanted = {"net": ["resnet50"], "k": [8, 16], "mode": ["inference"], "treatment": ["eager"]}
    chosen = cells.matching(cells.matrix_cells(), wanted)
    path = tmp_path / "results.json"
    running.run(chosen, running.Limits(), path, running.Conditions())
    assert asked == [cell.key for cell in chosen]
    rows = json.loads(path.read_text())["rows"]
    assert rows["resnet50 k8 b8 inference eager kept"]["error"] == "no room"
    assert "no room" in tables.failures(store.read(path))
    asked.clear()
    running.run(chosen, running.Limits(), path, running.Conditions())
    assert asked == []
    running.run(chosen, running.Limits(), path, running.Conditions(again=True))
    assert asked == ["resnet50 k8 b8 inference eager kept", "resnet50 k16 b8 inference eager kept"]


def test_a_target_is_measured_in_several_processes_whose_rounds_are_pooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([(1.1, 0.5), (1.2, 2.5), (1.6, 1.5)])

    def ask(request: Request, heap: str, timeout: float, module: str = "child") -> Any:
        assert (request.budget, request.least) == (30, 3)
        ratio, load = next(said)
        return [measured(cell, ratio) | {"load": load} for cell in request.cells]

    monkeypatch.setattr(running, "ask", ask)
    monkeypatch.setattr(running.machine, "describe", lambda device: {"torch": "2"})
    path = tmp_path / "results.json"
    running.run(cells.target_cells()[:1], running.Limits(), path, running.Conditions())
    (found,) = json.loads(path.read_text())["rows"].values()
    assert (found["processes"], found["rounds"], found["load"]) == (3, 6, 2.5)
    assert found["variants"]["ours"]["ratio"] == [1.125, 1.2, 1.5]
    assert "times" not in found
    lines = tables.machine(store.read(path))
    assert "- load average when a cell began, targets: 2.5, at most 2.5" in lines
