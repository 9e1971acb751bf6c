from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch

from rlawrap.errors import TrainError
from rlawrap.train.ablation import variant_costs
from rlawrap.train.ablation.grid import GridRun, Variant, make_grid
from rlawrap.train.ablation.outcomes import (
    Outcome,
    collect,
    draw_outcomes,
    markdown_table,
    write_report,
)
from rlawrap.train.ablation.variant_costs import VariantCost, measure, time_forward
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.records.runs import read_run
from tests.train.made_up_runs import write_run

TOP1 = {
    ("plain", 0): [60, 70],
    ("plain", 1): [75, 72],
    ("conv-output-k4", 0): [71, 73],
    ("conv-output-k4", 1): [70, 73],
    ("conv-output-k8", 0): [60, 74],
}


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[GridRun]:
    """Three variants with two seeds; one run of the last is not finished."""

    def cost(config: TrainConfig, *, seconds: float = 1.0) -> VariantCost:
        k = config.model_kwargs.get("k", 0)
        return VariantCost(params=1000 + k, macs=10**6 * (10 + k), latency_ms=1.5 + k)

    monkeypatch.setattr(variant_costs, "measure", cost)
    for (name, seed), top1 in TOP1.items():
        write_run(tmp_path / name / f"seed{seed}", top1)
    write_run(tmp_path / "conv-output-k8" / "seed1", [50], state="stopped", epochs=2)
    return make_grid(TrainConfig(output=str(tmp_path)), ks=[0, 4, 8], seeds=2)


def records(grid: list[GridRun]) -> list[tuple[GridRun, object]]:
    return [(run, read_run(run.folder.path)) for run in grid if run.finished]


def outcomes(grid: list[GridRun]) -> list[Outcome]:
    costs = {run.variant: variant_costs.measure(run.config) for run in grid}
    return collect(records(grid), costs)  # type: ignore[arg-type]


def test_outcomes_by_variant_and_seed(grid: list[GridRun]) -> None:
    plain, k4, k8 = outcomes(grid)
    assert (plain.last, plain.best, plain.gain) == ((70, 72), (70, 75), ())
    assert (k4.last, k4.best, k4.top5, k4.gain) == ((73, 73), (73, 73), (83, 83), (3, 1))
    assert (k8.seeds, k8.last, k8.gain) == ((0,), (74,), (4,))


def test_markdown_has_means_and_sample_deviations(grid: list[GridRun]) -> None:
    lines = markdown_table(outcomes(grid)).splitlines()
    assert lines[0].startswith("| k | cell | source | seeds | params | MACs |")
    assert lines[2] == (
        "| 0 | - | - | 2 | 1,000 | 10,000,000 | 1.50 | 71.00 ± 1.41 | - | 72.50 ± 3.54 "
        "| 81.00 ± 1.41 |"
    )
    assert "| 73.00 ± 0.00 | +2.00 ± 1.41 |" in lines[3]
    assert "| 74.00 | +4.00 | 74.00 | 84.00 |" in lines[4]


def test_report_files(grid: list[GridRun], tmp_path: Path) -> None:
    written = write_report(grid, tmp_path)
    assert [path.name for path in written] == [
        "results.csv",
        "results.md",
        "top1_against_k.png",
        "top1_against_k.svg",
        "top1_against_macs.png",
        "top1_against_macs.svg",
    ]
    assert "5 of 6 runs finished" in (tmp_path / "results.md").read_text()
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


@pytest.mark.parametrize(("against", "xs"), [("k", [0, 4, 8]), ("macs", [10, 14, 18])])
def test_plots_show_means_over_the_axis(grid: list[GridRun], against: str, xs: list[float]) -> None:
    axes = draw_outcomes(outcomes(grid), against=against).axes[0]
    (means,) = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert list(means.get_xdata()) == xs
    assert list(means.get_ydata()) == [71, 73, 74]
    assert axes.get_legend().get_texts()[0].get_text() == "conv, source output"
    if against == "k":
        assert axes.get_xticks().tolist() == xs


def test_plain_alone_can_be_drawn(grid: list[GridRun]) -> None:
    for against, x in (("k", 0), ("macs", 10)):
        (line,) = draw_outcomes(outcomes(grid)[:1], against=against).axes[0].get_lines()
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([x, x], [70, 72])


def test_cost_of_real_networks() -> None:
    config = TrainConfig(arch="cifar_resnet20", model_kwargs={"in_channels": 1})
    before = torch.get_rng_state()
    plain = measure(config, seconds=0.01)
    assert torch.equal(torch.get_rng_state(), before)
    assert (plain.params, plain.macs) == (269_434, 40_256_128)
    assert plain.latency_ms > 0
    smaller = measure(config.replace(image_size=16), seconds=0.01)
    assert smaller.params == plain.params
    assert smaller.macs == (plain.macs - 640) // 4 + 640  # all but the classifier


def test_timing_puts_the_threads_back() -> None:
    torch.set_num_threads(2)
    try:
        seen = []
        model = torch.nn.Identity()
        model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
        assert time_forward(model, torch.zeros(1), seconds=0.0) > 0
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_variants_are_named() -> None:
    assert Variant(k=0).name == "plain"
    assert Variant(k=4, cell="dwconv", source="branch").name == "dwconv-branch-k4"
