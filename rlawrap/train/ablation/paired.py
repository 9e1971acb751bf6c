"""Differences between networks trained from the same seeds, with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlawrap.errors import ConfigError, RLAError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Differences of one network to another, `name` minus `against`, seed by seed.

    mean, low, high: of the differences, with the bounds of the interval of Student's t.
    p: of the paired t-test, two-sided: how often differences as large come about if there is none.
    With fewer than two seeds there is no interval; low, high and p are None then.
    """

    name: str
    against: str
    confidence: float
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def separates(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def compare(
    figures: Mapping[str, Mapping[int, float]], against: str, *, confidence: float = 0.95
) -> list[Paired]:
    """Compare each network with one of them, over the seeds that both have.

    figures: by name of the network, by seed. The test is `scipy.stats.ttest_rel`; it takes the
    differences as drawn from one normal distribution, and makes no correction for the number of
    networks compared.
    Raises `ConfigError` when `against` is not among them, `RLAError` when scipy is missing.

    >>> found = {"plain": {0: 90.0, 1: 91.0, 2: 92.0}, "k=4": {0: 91.0, 1: 91.5, 2: 93.5}}
    >>> [pair] = compare(found, "plain")
    >>> pair.differences, pair.mean
    ((1.0, 0.5, 1.5), 1.0)
    >>> round(pair.low, 3), round(pair.high, 3), pair.separates
    (-0.242, 2.242, False)
    """
    if against not in figures:
        raise ConfigError(f"compare: {against!r} is none of {', '.join(figures)}.")
    if not 0 < confidence < 1:
        raise ConfigError(f"compare: confidence={confidence} is not between 0 and 1.")
    base = figures[against]
    found = []
    for name, own in figures.items():
        seeds = tuple(sorted(set(own) & set(base)))
        if name == against or not seeds:
            continue
        found.append(_pair(name, against, own, base, seeds, confidence))
    return found


def _pair(
    name: str,
    against: str,
    own: Mapping[int, float],
    base: Mapping[int, float],
    seeds: tuple[int, ...],
    confidence: float,
) -> Paired:
    differences = tuple(own[seed] - base[seed] for seed in seeds)
    low = high = p = None
    if len(set(differences)) > 1:
        try:
            from scipy.stats import ttest_rel
        except ImportError as error:
            raise RLAError(
                "A paired comparison needs scipy. Install it with: pip install 'rlawrap[train]'"
            ) from error
        test = ttest_rel([own[seed] for seed in seeds], [base[seed] for seed in seeds])
        interval = test.confidence_interval(confidence)
        low, high, p = float(interval.low), float(interval.high), float(test.pvalue)
    return Paired(
        name=name,
        against=against,
        confidence=confidence,
        seeds=seeds,
        differences=differences,
        mean=sum(differences) / len(differences),
        low=low,
        high=high,
        p=p,
    )


def paired_table(pairs: Sequence[Paired]) -> str:
    """Markdown, a line per comparison; "" when there is none.

    >>> pair = Paired(name="k=4", against="plain", confidence=0.95, seeds=(0,),
    ...     differences=(0.5,), mean=0.5, low=None, high=None, p=None)
    >>> print(paired_table([pair]))
    | network | minus | seeds | mean difference | 95 % interval | p | seed by seed |
    | --- | --- | ---: | ---: | ---: | ---: | ---: |
    | k=4 | plain | 1 | +0.50 | - | - | +0.50 |
    <BLANKLINE>
    """
    if not pairs:
        return ""
    interval = f"{100 * pairs[0].confidence:g} % interval"
    rows = [
        ("network", "minus", "seeds", "mean difference", interval, "p", "seed by seed"),
        ("---", "---", *["---:"] * 5),
    ]
    for pair in pairs:
        bounds = "-" if pair.low is None else f"{pair.low:+.2f} to {pair.high:+.2f}"
        p = "-" if pair.p is None else f"{pair.p:.3f}"
        each = ", ".join(f"{difference:+.2f}" for difference in pair.differences)
        rows.append(
            (pair.name, pair.against, str(len(pair.seeds)), f"{pair.mean:+.2f}", bounds, p, each)
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def draw_pairs(pairs: Sequence[Paired], unit: str = "top-1, points") -> Figure:
    """Each comparison as a line: its seeds as crosses, mean and interval as a dot with bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 1.4 + 0.45 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="gray", linewidth=1)
    for row, pair in enumerate(pairs):
        color = f"C{row % 10}"
        axes.plot(pair.differences, [row] * len(pair.differences), "x", color=color, alpha=0.6)
        bars = None
        if pair.low is not None and pair.high is not None:
            bars = [[pair.mean - pair.low], [pair.high - pair.mean]]
        axes.errorbar([pair.mean], [row], xerr=bars, fmt="o", color=color, capsize=4)
    axes.set_yticks(range(len(pairs)), [f"{pair.name} - {pair.against}" for pair in pairs])
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    confidence = f"; bars: {100 * pairs[0].confidence:g} % interval" if pairs else ""
    axes.set_xlabel(f"difference, {unit} (crosses: seeds{confidence})")
    axes.grid(alpha=0.3, axis="x")
    return figure
