"""What came out of an ablation: a CSV of runs, a Markdown table of means, and two plots."""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlawrap.errors import TrainError
from rlawrap.train.ablate import GridRun, Variant
from rlawrap.train.build import build_model, input_channels
from rlawrap.train.config import TrainConfig
from rlawrap.train.plot import plotting, save_figure
from rlawrap.train.runlog import write_json
from rlawrap.train.runs import RunRecord, read_run
from rlawrap.train.setup import open_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class VariantCost:
    """What a network of the grid costs: exact params and MACs per image, measured latency.

    latency_ms: milliseconds for one image on one CPU thread in evaluation mode, see `time_forward`.
    """

    params: int
    macs: int
    latency_ms: float


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


def measure(config: TrainConfig, *, seconds: float = 1.0) -> VariantCost:
    """Cost of the network of a run for the images of its data; timed for that many seconds."""
    from rlawrap.cost import cost

    images = open_images(config, "test")
    bare = config.replace(finetune=None, pretrained_conv1=None, freeze=())
    with torch.random.fork_rng(devices=[]):
        model = build_model(bare, len(images.classes)).eval()
    shape = (1, input_channels(model), *images.load(0, seed=0, epoch=0)[0].shape[1:])
    total = cost(model, shape[2:]).total
    latency = 1e3 * time_forward(model, torch.zeros(shape), seconds=seconds)
    return VariantCost(params=total.params, macs=total.macs, latency_ms=round(latency, 3))


def time_forward(model: nn.Module, x: Tensor, *, seconds: float = 1.0) -> float:
    """Median seconds of a forward pass on one CPU thread, over all that fit in `seconds`.

    The time is what this thread spent computing, so other programs on the machine disturb little.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times: list[float] = []
    try:
        with torch.no_grad():
            for _ in range(3):
                model(x)
            end = time.perf_counter() + seconds
            while not times or time.perf_counter() < end:
                start = time.thread_time()
                model(x)
                times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(times)


def measured_costs(runs: Sequence[GridRun], file: Path) -> dict[Variant, VariantCost]:
    """Costs of all variants; measured once and kept in a JSON file."""
    kept: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    costs = {}
    for run in runs:
        if run.variant in costs:
            continue
        if run.variant.name not in kept:
            kept[run.variant.name] = asdict(measure(run.config))
            write_json(file, kept)
        costs[run.variant] = VariantCost(**kept[run.variant.name])
    return costs


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
    header = (
        "k", "cell", "source", "seeds", "params", "MACs", "latency, ms",
        "top-1 %, last epoch", "minus plain, same seed", "top-1 %, best epoch", "top-5 %",
    )  # fmt: skip
    rows = [header, tuple("---" if 0 < i < 3 else "---:" for i in range(len(header)))]
    for outcome in outcomes:
        variant, cost = outcome.variant, outcome.cost
        rows.append(
            (
                str(variant.k),
                variant.cell or "-",
                variant.source or "-",
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


def csv_text(
    records: Sequence[tuple[GridRun, RunRecord]], costs: dict[Variant, VariantCost]
) -> str:
    """A line per finished run."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["k", "cell", "source", "seed", "params", "macs", "latency_ms", "epochs", "last_top1",
         "last_top5", "last_loss", "best_top1", "best_epoch", "train_images_per_s", "run"]
    )  # fmt: skip
    for run, record in records:
        key, best, last = record.judged, _best(record), record.evaluations[-1]
        cost, variant = costs[run.variant], run.variant
        table.writerow(
            [variant.k, variant.cell, variant.source, run.seed, cost.params, cost.macs,
             cost.latency_ms, last["epoch"] + 1, last[key + "top1"], last[key + "top5"],
             last[key + "loss"], best[key + "top1"], best["epoch"] + 1,
             round(record.images_per_s or 0, 1), run.config.output]
        )  # fmt: skip
    return text.getvalue()


def draw_outcomes(outcomes: Sequence[Outcome], *, against: str) -> Figure:
    """Top-1 of the last epoch against "k" or "macs": means, deviations as bars, runs as dots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    plain = next((outcome for outcome in outcomes if not outcome.variant.k), None)
    families = dict.fromkeys((o.variant.cell, o.variant.source) for o in outcomes if o.variant.k)
    for number, family in enumerate(families):
        members = [o for o in outcomes if (o.variant.cell, o.variant.source) == family]
        if plain is not None:
            members.insert(0, plain)
        color = f"C{number % 10}"
        xs = [o.variant.k if against == "k" else o.cost.macs / 1e6 for o in members]
        means = [statistics.fmean(o.last) for o in members]
        bars = [statistics.stdev(o.last) if len(o.last) > 1 else 0.0 for o in members]
        axes.errorbar(
            xs, means, bars, color=color, marker="o", markersize=4, capsize=3, linewidth=1,
            label=f"{family[0]}, source {family[1]}",
        )  # fmt: skip
        for x, outcome in zip(xs, members, strict=True):
            axes.plot([x] * len(outcome.last), outcome.last, "x", color=color, ms=4, alpha=0.5)
            if against == "macs":
                axes.annotate(f"k={outcome.variant.k}", (x, statistics.fmean(outcome.last)),
                              xytext=(4, -10), textcoords="offset points", fontsize=7)  # fmt: skip
    if plain is not None and not families:
        axes.plot([0] * len(plain.last), plain.last, "o")
    axes.set_xlabel("k, channels of the hidden state" if against == "k" else "million MACs")
    axes.set_ylabel("top-1 %, last epoch")
    axes.grid(alpha=0.3)
    if families:
        axes.legend(fontsize=8)
    return figure


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
        path = output / name
        new = path.with_name(f"{name}.new")
        new.write_text(text)
        os.replace(new, path)
        written.append(path)
    with plotting():
        for against in ("k", "macs"):
            figure = draw_outcomes(outcomes, against=against)
            written += save_figure(figure, output / f"top1_against_{against}")
    return written
