from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from rlawrap.errors import TrainError
from rlawrap.train.ablation import variant_costs
from rlawrap.train.ablation.grid import GridRun, make_grid
from rlawrap.train.ablation.report import write_report
from rlawrap.train.config.train_config import TrainConfig


def test_report_files(grid: list[GridRun], tmp_path: Path) -> None:
    written = write_report(grid, tmp_path)
    assert [path.name for path in written] == [
        "results.csv",
        "epochs.csv",
        "results.md",
        "top1_against_k.png",
        "top1_against_k.svg",
        "top1_against_macs.png",
        "top1_against_macs.svg",
        "curves.png",
        "curves.svg",
        "differences.png",
        "differences.svg",
    ]
    text = (tmp_path / "results.md").read_text()
    assert "5 of 6 runs finished" in text
    assert "| 2 | +2.00 | -10.71 to +14.71 | 0.295 | +3.00, +1.00 |" in text
    assert "| conv-output-k8 | plain | 1 | +4.00 | - | - | +4.00 |" in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert [(row["k"], row["seed"], row["last_top1"], row["best_epoch"]) for row in rows] == [
        ("0", "0", "70", "2"),
        ("0", "1", "72", "1"),
        ("4", "0", "73", "2"),
        ("4", "1", "73", "2"),
        ("8", "0", "74", "2"),
    ]
    assert {row["params"] for row in rows} == {"1000", "1004", "1008"}
    assert not list(tmp_path.rglob("*.new"))


def test_costs_are_measured_once(
    grid: list[GridRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(grid, tmp_path)
    first = (tmp_path / "results.csv").read_text()

    def refuse(config: TrainConfig) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(variant_costs, "measure", refuse)
    write_report(grid, tmp_path)
    assert (tmp_path / "results.csv").read_text() == first
    assert set(json.loads((tmp_path / "costs.json").read_text())) == {
        "plain",
        "conv-output-k4",
        "conv-output-k8",
    }


def test_nothing_finished_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nothing to report"):
        write_report(make_grid(TrainConfig(output=str(tmp_path)), ks=[0]), tmp_path)


def test_without_the_plain_network_nothing_is_compared(grid: list[GridRun], tmp_path: Path) -> None:
    written = write_report([run for run in grid if run.variant.k], tmp_path)
    assert not [path for path in written if path.stem == "differences"]
    assert "paired" not in (tmp_path / "results.md").read_text()
