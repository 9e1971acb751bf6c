from __future__ import annotations

import csv
import io

from rlawrap.train.ablation.grid import GridRun, Variant
from rlawrap.train.ablation.outcomes import by_seed, epochs_csv_text, markdown_table
from tests.train.ablation.collected import outcomes, records


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


def test_variants_are_named() -> None:
    assert Variant(k=0).name == "plain"
    assert Variant(k=4, cell="dwconv", source="branch").name == "dwconv-branch-k4"


def test_figures_by_seed(grid: list[GridRun]) -> None:
    assert by_seed(outcomes(grid)) == {
        "plain": {0: 70, 1: 72},
        "conv-output-k4": {0: 73, 1: 73},
        "conv-output-k8": {0: 74},
    }


def test_epochs_have_a_line_each(grid: list[GridRun]) -> None:
    rows = list(csv.DictReader(io.StringIO(epochs_csv_text(records(grid)))))
    assert len(rows) == 10
    first, last = rows[0], rows[-1]
    assert (first["variant"], first["seed"], first["epoch"]) == ("plain", "0", "1")
    assert (float(first["top1"]), float(first["top5"]), float(first["loss"])) == (60, 70, 1.8)
    assert (last["variant"], last["epoch"], last["top1"]) == ("conv-output-k8", "2", "74")
    assert last["train_loss"] == ""  # the made-up runs do not say
