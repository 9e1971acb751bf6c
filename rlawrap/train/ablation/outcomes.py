"""What came out of an ablation: a CSV of runs, a Markdown table of means, and two plots."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlawrap.errors import TrainError
from rlawrap.files import put_in_place
from rlawrap.train.ablation.grid import GridRun, Variant
from rlawrap.train.ablation.variant_costs import VariantCost, measured_costs
from rlawrap.train.records.plot import plotting, save_figure
from rlawrap.train.records.readable import name_entries
from rlawrap.train.records.runs import RunRecord, read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The runs of one variant. Accuracies in per cent, one per seed.

    last: after the last epoch. best: of the best epoch, which is chosen on the test images
    themselves. gain: `last` minus that of the plain network with the same seed.
    """

    variant: Variant
    cost: VariantCost
    seeds: tuple[int, ...]
    last: tuple[float, ...]
    best: tuple[float, ...]
    top5: tuple[float, ...]
    gain: tuple[float, ...]


def collect(
    records: Sequence[tuple[GridRun, RunRecord]], costs: dict[Variant, VariantCost]
) -> list[Outcome]:
    """Outcomes of finished runs by variant, in order of the grid."""
    by_variant: dict[Variant, list[tuple[int, RunRecord]]] = {}
    for run, record in records:
        by_variant.setdefault(run.variant, []).append((run.seed, record))
    plain = {seed: _last_top1(record) for seed, record in by_variant.get(Variant(k=0), [])}
    outcomes = []
    for variant, members in by_variant.items():
        pairs = [(seed, _last_top1(record)) for seed, record in members]
        gains = [top1 - plain[seed] for seed, top1 in pairs if variant.k and seed in plain]
        outcomes.append(
            Outcome(
                variant=variant,
                cost=costs[variant],
                seeds=tuple(seed for seed, _ in members),
                last=tuple(top1 for _, top1 in pairs),
                best=tuple(_best(record)[record.judged + "top1"] for _, record in members),
                top5=tuple(record.evaluations[-1][record.judged + "top5"] for _, record in members),
                gain=tuple(gains),
            )
        )
    return outcomes


def _last_top1(record: RunRecord) -> float:
    return float(record.evaluations[-1][record.judged + "top1"])


def _best(record: RunRecord) -> dict[str, Any]:
    best = record.best
    assert best is not None  # a finished run has been judged
    return best


def spread(values: Sequence[float], *, signed: bool = False) -> str:
    """Mean and standard deviation of a sample (n - 1), the latter left out for one value.

    >>> spread([90.0, 91.0, 92.0]), spread([1.5], signed=True), spread([])
    ('91.00 ± 1.00', '+1.50', '-')
    """
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):{'+' if signed else ''}.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    """A line per variant. Accuracies: mean ± standard deviation over seeds."""
    others = option_names(outcome.variant for outcome in outcomes)
    header = (
        "k", "cell", "source", *others, "seeds", "params", "MACs", "latency, ms",
        "top-1 %, last epoch", "minus plain, same seed", "top-1 %, best epoch", "top-5 %",
    )  # fmt: skip
    words = range(1, 3 + len(others))
    rows = [header, tuple("---" if i in words else "---:" for i in range(len(header)))]
    for outcome in outcomes:
        variant, cost = outcome.variant, outcome.cost
        rows.append(
            (
                str(variant.k),
                variant.cell or "-",
                variant.source or "-",
                *(str(dict(variant.options).get(name, "-")) for name in others),
                str(len(outcome.seeds)),
                f"{cost.params:,}",
                f"{cost.macs:,}",
                f"{cost.latency_ms:.2f}",
                spread(outcome.last),
                spread(outcome.gain, signed=True),
                spread(outcome.best),
                spread(outcome.top5),
            )
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def option_names(variants: Iterable[Variant]) -> list[str]:
    """Names of the fields beyond k, cell and source that a grid goes over."""
    return list(dict.fromkeys(name for variant in variants for name, _ in variant.options))


def csv_text(
    records: Sequence[tuple[GridRun, RunRecord]], costs: dict[Variant, VariantCost]
) -> str:
    """A line per finished run."""
    others = option_names(run.variant for run, _ in records)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["k", "cell", "source", *others, "seed", "params", "macs", "latency_ms", "epochs",
         "last_top1", "last_top5", "last_loss", "best_top1", "best_epoch",
         "train_images_per_s", "run"]
    )  # fmt: skip
    for run, record in records:
        key, best, last = record.judged, _best(record), record.evaluations[-1]
        cost, variant = costs[run.variant], run.variant
        table.writerow(
            [variant.k, variant.cell, variant.source,
             *(dict(variant.options).get(name, "") for name in others),
             run.seed, cost.params, cost.macs, cost.latency_ms, last["epoch"] + 1,
             last[key + "top1"], last[key + "top5"],
             last[key + "loss"], best[key + "top1"], best["epoch"] + 1,
             round(record.images_per_s or 0, 1), run.config.output]
        )  # fmt: skip
    return text.getvalue()


def spaced(ks: Sequence[int]) -> list[int]:
    """Those of the values of k, in order, that have room for a number on the axis.

    >>> spaced([0, 4, 8, 16]), spaced([0, 1, 2, 64])
    ([0, 4, 8, 16], [0, 64])
    """
    room = (ks[-1] - ks[0]) / 20
    shown = list(ks[:1])
    for k in ks[1:]:
        if k - shown[-1] >= room and (k == ks[-1] or ks[-1] - k >= room):
            shown.append(k)
    return shown


def draw_outcomes(outcomes: Sequence[Outcome], *, against: str) -> Figure:
    """Top-1 of the last epoch against "k" or "macs": means, deviations as bars, runs as dots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    plain = next((outcome for outcome in outcomes if not outcome.variant.k), None)
    families = {o.variant.family: _legend(o.variant) for o in outcomes if o.variant.k}
    for number, family in enumerate(families):
        members = [o for o in outcomes if o.variant.k and o.variant.family == family]
        if plain is not None:
            members.insert(0, plain)
        color = f"C{number % 10}"
        xs = [o.variant.k if against == "k" else o.cost.macs / 1e6 for o in members]
        means = [statistics.fmean(o.last) for o in members]
        bars = [statistics.stdev(o.last) if len(o.last) > 1 else 0.0 for o in members]
        axes.errorbar(
            xs, means, bars, color=color, marker="o", markersize=4, capsize=3, linewidth=1,
            label=str(number),
        )  # fmt: skip
        for x, outcome in zip(xs, members, strict=True):
            axes.plot([x] * len(outcome.last), outcome.last, "x", color=color, ms=4, alpha=0.5)
            if against == "macs":
                axes.annotate(f"k={outcome.variant.k}", (x, statistics.fmean(outcome.last)),
                              xytext=(4, -10), textcoords="offset points", fontsize=7)  # fmt: skip
    if plain is not None and not families:
        x = 0 if against == "k" else plain.cost.macs / 1e6
        axes.plot([x] * len(plain.last), plain.last, "o")
    if against == "k":
        axes.set_xticks(spaced(sorted({outcome.variant.k for outcome in outcomes})))
    axes.set_xlabel("k, channels of the hidden state" if against == "k" else "million MACs")
    axes.set_ylabel("top-1 %, last epoch")
    axes.grid(alpha=0.3)
    if families:
        name_entries(axes.legend(fontsize=8), list(families.values()))
    return figure


def _legend(variant: Variant) -> str:
    others = [f"{name} {value}" for name, value in variant.options]
    return ", ".join([variant.cell, f"source {variant.source}", *others])


def write_report(runs: Sequence[GridRun], output: Path) -> list[Path]:
    """Write results.csv, results.md and the plots of the finished runs; returns their paths.

    Raises `TrainError` when no run is finished.
    """
    records = [(run, read_run(run.folder.path)) for run in runs if run.finished]
    if not records:
        raise TrainError(f"{output}: no run of the grid is finished, there is nothing to report.")
    costs = measured_costs([run for run, _ in records], output / "costs.json")
    outcomes = collect(records, costs)
    written = []
    note = f"{len(records)} of {len(runs)} runs finished. Mean ± standard deviation over seeds.\n"
    for name, text in (
        ("results.csv", csv_text(records, costs)),
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
    return written
