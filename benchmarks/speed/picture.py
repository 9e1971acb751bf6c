"""Time against arithmetic: each network's ratio of times over its ratio of multiply-accumulates."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed.cells import KS, Cell
from benchmarks.speed.store import Results
from benchmarks.speed.tables import NETS_IN_ORDER, TITLES

#: Title -> mode, treatment and variant.
PANELS = {
    "inference, eager": ("inference", "eager", "ours"),
    "inference, folded": ("inference", "folded", "fused"),
    "training step": ("training", "eager", "ours"),
}
COLOURS = dict(zip(TITLES, ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00"), strict=True))


def points(results: Results, net: str, panel: str, batch: int) -> list[tuple[float, list[float]]]:
    """Ratio of MACs, and quartiles of the ratio of times, for each k that was measured."""
    mode, treatment, variant = PANELS[panel]
    found = []
    for k in KS:
        cell = Cell(net=net, k=k, batch=batch, mode=mode, treatment=treatment)
        row = results["rows"].get(cell.key, {})
        if variant in row.get("variants", {}):
            found.append((row["macs_ratio"], row["variants"][variant]["ratio"]))
    return found


def draw(results: Results, path: Path, batch: int = 8) -> None:
    """Write the picture, one panel for each way to run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(11, 4), sharex=True, sharey=True)
    for axis, panel in zip(axes, PANELS, strict=True):
        for net in NETS_IN_ORDER:
            found = points(results, net, panel, batch)
            if not found:
                continue
            x = [macs for macs, _ in found]
            y = [median for _, (_, median, _) in found]
            spread = [
                [median - low for _, (low, median, _) in found],
                [high - median for _, (_, median, high) in found],
            ]
            axis.errorbar(
                *(x, y, spread),
                color=COLOURS[net],
                label=TITLES[net],
                marker="o",
                markersize=4,
                linewidth=1.2,
                capsize=2,
            )
        line = {"color": "0.6", "linewidth": 1, "linestyle": "--", "zorder": 0}
        axis.axline((1, 1), slope=1, label="time = MACs", **line)
        axis.set_title(panel, fontsize=11)
        axis.set_xlabel("MACs, ratio to the plain network")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("time, ratio to the plain network")
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="lower center", ncol=len(labels), frameon=False)
    figure.suptitle(f"Batch {batch}, k = {', '.join(map(str, KS))} from left to right", fontsize=10)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)
