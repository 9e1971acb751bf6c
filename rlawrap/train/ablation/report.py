"""The report of an ablation: its tables and pictures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlawrap.errors import TrainError
from rlawrap.files import put_in_place
from rlawrap.train.ablation.drawing import draw_curves, draw_outcomes
from rlawrap.train.ablation.grid import GridRun, Variant
from rlawrap.train.ablation.outcomes import (
    by_seed,
    collect,
    csv_text,
    epochs_csv_text,
    markdown_table,
)
from rlawrap.train.ablation.paired import compare, draw_pairs, paired_table
from rlawrap.train.ablation.variant_costs import measured_costs
from rlawrap.train.records.plot import plotting, save_figure
from rlawrap.train.records.runs import read_run

PAIRED_NOTE = """
Differences of top-1 after the last epoch, in points, between runs of the same seed; the interval
and p are of a paired t-test, without a correction for the number of networks.
"""


def write_report(runs: Sequence[GridRun], output: Path) -> list[Path]:
    """Write the CSVs, results.md and the plots of the finished runs; returns their paths.

    With the plain network in the grid, results.md and a plot compare the others with it seed by
    seed.

    Raises `TrainError` when no run is finished.
    """
    records = [(run, read_run(run.folder.path)) for run in runs if run.finished]
    if not records:
        raise TrainError(f"{output}: no run of the grid is finished, there is nothing to report.")
    costs = measured_costs([run for run, _ in records], output / "costs.json")
    outcomes = collect(records, costs)
    written = []
    note = f"{len(records)} of {len(runs)} runs finished. Mean ± standard deviation over seeds.\n"
    plain, figures = Variant(k=0).name, by_seed(outcomes)
    pairs = compare(figures, plain) if plain in figures else []
    if pairs:
        note += f"{PAIRED_NOTE}\n{paired_table(pairs)}"
    for name, text in (
        ("results.csv", csv_text(records, costs)),
        ("epochs.csv", epochs_csv_text(records)),
        ("results.md", f"{markdown_table(outcomes)}\n{note}"),
    ):
        path, new = output / name, output / f"{name}.new"
        new.write_text(text)
        put_in_place(new, path)
        written.append(path)
    with plotting():
        for against in ("k", "macs"):
            figure = draw_outcomes(outcomes, against=against)
            written += save_figure(figure, output / f"top1_against_{against}")
        written += save_figure(draw_curves(records), output / "curves")
        if pairs:
            written += save_figure(draw_pairs(pairs), output / "differences")
    return written
