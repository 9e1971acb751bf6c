"""Curves of runs: loss, top-1, top-5 and learning rate, several runs over each other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlawrap.errors import ConfigError, RLAError, TrainError
from rlawrap.files import put_in_place
from rlawrap.train.records.readable import cut_spikes, name_entries
from rlawrap.train.records.runs import RunRecord, judged_by, read_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")


@contextmanager
def plotting() -> Iterator[None]:
    """Say what is missing when matplotlib is. Its pyplot state machine is never touched."""
    try:
        import matplotlib
    except ImportError as error:
        raise RLAError(
            "Plots need matplotlib. Install it with: pip install 'rlawrap[train]'"
        ) from error
    with matplotlib.rc_context({"svg.hashsalt": "rlawrap"}):  # the same plot, the same file
        yield


def stem_of(path: Path, name: str) -> Path:
    """A path without ending for files, `name` in it where it has no name of its own.

    >>> stem_of(Path("figures/loss"), "curves").as_posix(), stem_of(Path(".."), "curves").as_posix()
    ('figures/loss', '../curves')
    """
    return path / name if path.name in ("", "..") else path


def save_figure(figure: Figure, stem: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a figure as stem.png, stem.svg and so on, each whole or not at all.

    Raises `ConfigError` for an unknown format, `RLAError` when a file cannot be written.
    """
    known = figure.canvas.get_supported_filetypes()
    if unknown := [name for name in formats if name not in known]:
        raise ConfigError(f"plot format {unknown[0]!r}: choose from {', '.join(sorted(known))}.")
    written = []
    for name in formats:
        path = stem.with_name(f"{stem.name}.{name}")
        new = path.with_name(path.name + ".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"Date": None} if name == "svg" else None
            figure.savefig(new, format=name, dpi=150, metadata=metadata)
            put_in_place(new, path)
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise RLAError(f"{path}: cannot be written ({error.strerror}).") from error
        written.append(path)
    return written


def draw_runs(records: Sequence[RunRecord], names: Sequence[str] | None = None) -> Figure:
    """Four panels: loss, two figures of the task (top-1 and top-5) and learning rate over epochs.

    Test figures are solid, training figures thin and dashed, those of averaged weights dotted.
    Before a run's first epoch has been judged the axis counts steps. Spikes of the loss are cut.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    loss, one, other, rate = figure.subplots(2, 2).flat
    first, second = panels(records)
    in_epochs = all(record.evaluations for record in records)
    colors = [f"C{number % 10}" for number in range(len(records))]
    for record, color in zip(records, colors, strict=True):
        scale = _steps_per_epoch(record) if in_epochs else {}
        train, judged = record.train, record.evaluations
        for axes, key in ((loss, "loss"), (one, first)):
            _line(axes, train, key, scale, color=color, linestyle="--", linewidth=0.8, alpha=0.6)
        for axes, key in ((loss, "loss"), (one, first), (other, second)):
            _line(axes, judged, key, scale, color=color, marker="o", markersize=2.5)
            _line(axes, judged, f"ema_{key}", scale, color=color, linestyle=":")
        _line(rate, train or judged, "lr", scale, color=color)
    for axes, title in (
        (loss, "cross entropy" if first == "top1" else "loss"),
        (one, _TITLES.get(first, first)),
        (other, _TITLES.get(second, second)),
        (rate, "learning rate"),
    ):
        _finish_panel(axes, title, "epoch" if in_epochs else "step")
    cut_spikes(loss)
    averaged = any(record.judged for record in records)
    _legends(figure, one, colors, names or [record.name for record in records], averaged=averaged)
    return figure


#: Titles of figures that have others than their names.
_TITLES = {
    "top1": "top-1 accuracy, %",
    "top5": "top-5 accuracy, %",
    "box_ap": "AP of boxes, %",
    "box_ap50": "AP of boxes at IoU 0.5, %",
    "mask_ap": "AP of masks, %",
    "miou": "mean IoU, %",
    "pixel_accuracy": "pixels that are right, %",
}
#: The second panel beside what decides, where it is not the next figure.
_SECOND = {"top1": "top5", "box_ap": "box_ap50", "mask_ap": "box_ap", "miou": "pixel_accuracy"}


def panels(records: Sequence[RunRecord]) -> tuple[str, str]:
    """The two figures that are drawn beside the loss: what decides, and another one.

    Raises `ConfigError` for runs of several tasks, which have no figure in common.
    """
    tasks = list(dict.fromkeys(record.task for record in records))
    if len(tasks) > 1:
        raise ConfigError(
            f"plot: runs of different tasks, {' and '.join(tasks)}, have no figures in common. "
            "Draw them one task at a time."
        )
    if tasks == ["classification"]:
        return "top1", "top5"
    judged = [line for record in records for line in record.evaluations[-1:]]
    names = [name for line in judged for name in judged_by(line) if name != "loss"]
    first = records[0].monitor
    if first == "loss" and names:
        first = names[0]
    rest = [name for name in names if name != first]
    second = _SECOND.get(first, "")
    return first, second if second in rest or not rest else rest[0]


def _finish_panel(axes: Axes, title: str, unit: str) -> None:
    """Title and axes; a panel without a figure yet says so, and none ends at its only point."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=10)
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if not axes.get_lines():
        axes.text(0.5, 0.5, "not judged yet", transform=axes.transAxes, ha="center", color="gray")
    elif axes.dataLim.xmax <= 1:
        axes.set_xlim(0, 1.05)


def _legends(
    figure: Figure, axes: Axes, colors: Sequence[str], names: Sequence[str], *, averaged: bool
) -> None:
    """What the kinds of lines are, in one panel, and whose their colours are, below all."""
    from matplotlib.lines import Line2D

    kinds = {
        "test": Line2D([], [], color="gray"),
        "training": Line2D([], [], color="gray", linestyle="--", linewidth=0.8),
    }
    if averaged:
        kinds["test, averaged weights"] = Line2D([], [], color="gray", linestyle=":")
    axes.legend(handles=list(kinds.values()), labels=list(kinds), fontsize=8)
    lines = [Line2D([], [], color=color, marker="o", markersize=2.5) for color in colors]
    legend = figure.legend(
        loc="outside lower center", ncols=min(4, len(names)), fontsize=9, handles=lines,
        labels=[str(number) for number in range(len(names))],
    )  # fmt: skip
    name_entries(legend, names)


def _steps_per_epoch(record: RunRecord) -> dict[int, float]:
    """By epoch, as a run may go on with another batch."""
    return {line["epoch"]: line["global_step"] / (line["epoch"] + 1) for line in record.evaluations}


def _line(
    axes: Axes, lines: Sequence[dict[str, Any]], key: str, scale: dict[int, float], **style: Any
) -> None:
    """A curve over steps, divided by those of an epoch; one that goes on is like the last one."""
    last = list(scale.values())[-1] if scale else 1.0
    points = [
        (line["global_step"] / scale.get(line["epoch"], last), line[key])
        for line in lines
        if line.get(key) is not None
    ]
    if len(points) == 1:  # a line of one point cannot be seen
        hollow = {"markerfacecolor": "none"} if style.get("linestyle") == "--" else {}
        style |= {"marker": "o", "markersize": 5, **hollow}
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell run folders apart: their own, or the paths from where they part.

    >>> distinct_names([Path("runs/a/seed0"), Path("runs/b/seed0")])
    ['a/seed0', 'b/seed0']
    """
    whole = [path.resolve() for path in paths]
    for depth in range(1, max(len(path.parts) for path in whole)):
        names = [Path(*path.parts[-depth:]).as_posix() for path in whole]
        if len(set(names)) == len(set(whole)):
            return names
    return [path.as_posix() for path in whole]


def plot_runs(
    paths: Sequence[Path], stem: Path | None = None, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Draw the runs in these folders and write the files; returns their paths.

    stem: path without ending; None is `curves` in the run's folder, or in the folder that holds
    all runs. Raises `TrainError` for a folder that is no run or has nothing to draw yet.
    """
    records = [read_run(path) for path in paths]
    for record in records:
        if not (record.train or record.evaluations):
            raise TrainError(f"{record.folder.path}: no metrics to draw yet.")
    if stem is None:
        whole = [path.resolve() for path in paths]
        above = whole[0] if len(whole) == 1 else Path(os.path.commonpath([p.parent for p in whole]))
        stem = above / "curves"
    stem = stem_of(stem, "curves")
    with plotting():
        return save_figure(draw_runs(records, distinct_names(paths)), stem, formats)
