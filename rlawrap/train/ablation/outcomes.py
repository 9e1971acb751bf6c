"""What came out of an ablation: CSVs of runs and of their epochs, a Markdown table of means."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlawrap.train.ablation.grid import GridRun, Variant
from rlawrap.train.ablation.variant_costs import VariantCost
from rlawrap.train.records.runs import RunRecord


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


def by_seed(outcomes: Sequence[Outcome]) -> dict[str, dict[int, float]]:
    """Top-1 of the last epoch by name of the variant, by seed, as `paired.compare` takes it."""
    return {
        outcome.variant.name: dict(zip(outcome.seeds, outcome.last, strict=True))
        for outcome in outcomes
    }


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


#: Of each judged epoch in `epochs.csv`, beside the variant and the seed.
EPOCH_FIGURES = ("train_loss", "train_top1", "loss", "top1", "top5")


def epochs_csv_text(records: Sequence[tuple[GridRun, RunRecord]]) -> str:
    """A line per judged epoch of each finished run; epochs count from 1."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["variant", "seed", "epoch", *EPOCH_FIGURES])
    for run, record in records:
        for line in record.evaluations:
            judged = {name: line.get(record.judged + name) for name in ("loss", "top1", "top5")}
            figures = {**line, **judged}
            values = [figures.get(name, "") for name in EPOCH_FIGURES]
            table.writerow([run.variant.name, run.seed, line["epoch"] + 1, *values])
    return text.getvalue()
