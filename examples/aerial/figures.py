"""Curves and table of aerial_scenes.py: `python examples/aerial/figures.py OUTPUT/ap.csv DOCS`.

Writes DOCS/curves.png, a thin line for each seed and a thick one for their mean, and prints the
table of the last epoch as Markdown.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

TITLES = {"plain": "plain", "rla": "with h, k = 16"}
COLOURS = {"plain": "#0072b2", "rla": "#d55e00"}
MEASURES = {"box_ap": "AP", "box_ap50": "AP at IoU 0.5", "box_ap75": "AP at IoU 0.75"}

#: arm -> seed -> the epochs' rows
Runs = dict[str, dict[int, list[dict[str, float]]]]


def read(path: Path) -> Runs:
    runs: Runs = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            values = {key: float(value) for key, value in row.items() if key not in ("arm", "seed")}
            runs.setdefault(row["arm"], {}).setdefault(int(row["seed"]), []).append(values)
    return runs


def draw(runs: Runs, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, measure in zip(axes, ("box_ap", "box_ap50"), strict=True):
        for arm, seeds in runs.items():
            epochs = [row["epoch"] for row in next(iter(seeds.values()))]
            curves = [[row[measure] for row in rows] for rows in seeds.values()]
            for curve in curves:
                axis.plot(epochs, curve, color=COLOURS[arm], linewidth=0.7, alpha=0.45)
            mean = [statistics.fmean(values) for values in zip(*curves, strict=True)]
            axis.plot(epochs, mean, color=COLOURS[arm], linewidth=2, label=TITLES[arm])
        axis.set_xlabel("epoch")
        axis.set_ylabel(f"{MEASURES[measure]}, %")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=110)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def table(runs: Runs) -> str:
    """Mean and standard deviation over the seeds at the last epoch, and the difference by seed."""
    lines = ["| % | " + " | ".join(TITLES[arm] for arm in runs) + " | difference, seed by seed |"]
    lines.append("| --- |" + " ---: |" * (len(runs) + 1))
    for measure, title in MEASURES.items():
        last = {arm: [rows[-1][measure] for rows in seeds.values()] for arm, seeds in runs.items()}
        pairs = zip(last["rla"], last["plain"], strict=True)
        differences = ", ".join(f"{a - b:+.1f}" for a, b in pairs)
        cells = " | ".join(spread(values) for values in last.values())
        lines.append(f"| {title} | {cells} | {differences} |")
    return "\n".join(lines)


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    runs = read(source)
    target.mkdir(parents=True, exist_ok=True)
    draw(runs, target / "curves.png")
    print(table(runs))


if __name__ == "__main__":
    main()
