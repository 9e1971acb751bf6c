"""Pictures of an ablation: accuracy against k and against MACs, and curves over the epochs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlawrap.train.ablation.grid import GridRun, Variant
from rlawrap.train.ablation.outcomes import Outcome
from rlawrap.train.records.readable import name_entries
from rlawrap.train.records.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def draw_curves(records: Sequence[tuple[GridRun, RunRecord]]) -> Figure:
    """Top-1 after each epoch: a thin line per seed, a thick one for the mean of a variant."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    curves: dict[str, list[list[float]]] = {}
    for run, record in records:
        own = [float(line[record.judged + "top1"]) for line in record.evaluations]
        curves.setdefault(run.variant.name, []).append(own)
    for number, seeds in enumerate(curves.values()):
        color = f"C{number % 10}"
        for own in seeds:
            axes.plot(range(1, len(own) + 1), own, color=color, linewidth=0.7, alpha=0.4)
        means = [statistics.fmean(values) for values in zip(*seeds, strict=False)]
        axes.plot(range(1, len(means) + 1), means, "o-", color=color, ms=3, label=str(number))
    axes.set_xlabel("epoch")
    axes.set_ylabel("top-1 %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    name_entries(axes.legend(fontsize=8), list(curves))
    return figure
