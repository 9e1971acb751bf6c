"""Reading run folders: what was trained, how far it got, how good it became."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlawrap.errors import TrainError
from rlawrap.train.config.naming import network_of, smaller_is_better
from rlawrap.train.store.json_files import read_json_if_whole
from rlawrap.train.store.lock import is_running
from rlawrap.train.store.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run folder says about a run.

    config: the `TrainConfig` as plain values. status: status.json, empty when missing.
    state: "running", "stopped", "finished", "failed", or "killed": it says that it is running, but
    no process is there any more; "unknown" without status.json.
    train, evaluations: the lines of metrics.jsonl of kind "train" and "eval", oldest first.
    published: best.json, the figures of the best.pt that is there; empty when missing.
    """

    folder: RunFolder
    config: dict[str, Any]
    status: dict[str, Any]
    state: str
    train: tuple[dict[str, Any], ...]
    evaluations: tuple[dict[str, Any], ...]
    published: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.path.resolve().name

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.state == "finished"

    @property
    def judged(self) -> str:
        """Prefix of the figures that decide: those of the averaged weights when there are any."""
        figures = self.evaluations[-1] if self.evaluations else self.published
        return "ema_" if f"ema_{self.monitor}" in figures else ""

    @property
    def task(self) -> str:
        """The task of the run."""
        return str(self.config.get("task", "classification"))

    @property
    def monitor(self) -> str:
        """The figure that decides which epoch is the best."""
        return str(self.config.get("monitor") or "top1")

    @property
    def best(self) -> dict[str, Any] | None:
        """The best epoch's figures: those of best.pt, or the first best by what the run monitored.

        best.pt may be of an epoch that is not in the metrics, where the run goes on from another
        one, or was chosen by what the run monitored before.
        """
        if self.published:
            epoch = self.published["epoch"]
            return next((n for n in self.evaluations if n["epoch"] == epoch), self.published)
        key = self.judged + self.monitor
        sign = 1 if smaller_is_better(key) else -1
        judged = [line for line in self.evaluations if line.get(key) is not None]
        return min(judged, key=lambda line: sign * line[key], default=None)

    @property
    def epochs_done(self) -> int:
        """Epochs up to the last one judged, those of a run that it goes on from among them."""
        if self.evaluations:
            return int(self.evaluations[-1]["epoch"]) + 1
        return int(self.status.get("epoch", 0))

    @property
    def images_per_s(self) -> float | None:
        """Training speed over all that the log covers."""
        seconds = sum(line["seconds"] for line in self.train)
        return sum(line["images"] for line in self.train) / seconds if seconds else None


def read_run(path: str | os.PathLike[str]) -> RunRecord:
    """Read a run folder, of a run that may still be going on.

    Raises `TrainError` when the folder is none, or a file in it is damaged.
    """
    folder = RunFolder(path)
    if not folder.config_file.is_file():
        raise TrainError(
            f"{folder.path}: not a run folder, it has no {folder.config_file.name}. "
            "`rlawrap runs DIR` lists the runs below a folder."
        )
    config = folder.config_values()
    if config is None:
        raise TrainError(f"{folder.config_file}: cannot be read, and the run has not begun.")
    if missing := [name for name in ("arch", "model_kwargs", "epochs") if name not in config]:
        raise TrainError(
            f"{folder.config_file}: not the configuration of a run, it has no {missing[0]}. "
            "`rlawrap runs DIR` lists the runs below a folder."
        )
    lines = _read_lines(folder.metrics_file)
    status, state = _status(folder)
    return RunRecord(
        folder=folder,
        config=config,
        status=status,
        state=state,
        train=tuple(line for line in lines if line.get("kind") == "train"),
        evaluations=tuple(line for line in lines if line.get("kind") == "eval"),
        published=read_json_if_whole(folder.best_file) or {},
    )


def _status(folder: RunFolder) -> tuple[dict[str, Any], str]:
    """status.json and the state: a run that was killed could not write that it is not running."""
    status = folder.status()
    if status.get("state") == "running" and is_running(folder) is False:
        status = folder.status()  # it may have ended between the two questions
        if status.get("state") == "running":
            return status, "killed"
    return status, str(status.get("state", "unknown"))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrainError(f"{path}: cannot be read ({error.strerror}).") from error
    *whole, _ = content.split(b"\n")  # what follows the last newline is being written
    lines = []
    for number, line in enumerate(whole, 1):
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise TrainError(f"{path}: line {number} is damaged ({error}).") from error
        lines.append(values)
    return lines


def find_runs(
    path: str | os.PathLike[str], *, damaged: Callable[[str], None] | None = None
) -> list[RunRecord]:
    """The runs in a folder and below it, in order of path. Raises `TrainError` if it is missing.

    damaged: told what is wrong with a run that cannot be read, instead of a `TrainError`.
    """
    if not Path(path).is_dir():
        raise TrainError(f"{path}: no such folder.")
    found = []
    for folder, below, files in os.walk(path):
        below.sort()
        if {"config.json", "metrics.jsonl"} <= set(files):
            try:
                found.append(read_run(folder))
            except TrainError as error:
                if damaged is None:
                    raise
                damaged(str(error))
            below.clear()
    return found


def loading_line(path: Path) -> str:
    """The Python that loads a run's network."""
    return f'from rlawrap.train import load_model; model = load_model("{path.as_posix()}")'


#: What a line of kind "eval" has beside what the network was judged by.
_BESIDE = frozenset(
    {"kind", "epoch", "global_step", "lr", "seconds", "skipped", "test_skipped", "checkpoint"}
)


def judged_by(line: dict[str, Any]) -> list[str]:
    """The figures that the network was judged by, in a line of kind "eval".

    >>> judged_by({"kind": "eval", "epoch": 0, "train_loss": 1.0, "miou": 50.0, "ema_miou": 51.0})
    ['miou']
    """
    others = ("train_", "ema_")
    return [name for name in line if name not in _BESIDE and not name.startswith(others)]


def shown(value: Any) -> str:
    """A figure in a table; per cent or a loss alike.

    >>> shown(71.234), shown(None), shown(0.123456)
    ('71.23', '-', '0.1235')
    """
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.4f}"


def runs_table(records: Sequence[RunRecord], below: Path) -> Table:
    """A table of runs, a line each; paths are shown from `below`.

    Runs of other tasks than classification have a column that says by which figure they are judged.
    """
    from rich.table import Table

    classes_alone = all(record.task == "classification" for record in records)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "network", "data", "seed", "state"):
        table.add_column(title, overflow="fold")
    titles = ("best top-1 %", "top-5 %", "at epoch", "last top-1 %")
    if not classes_alone:
        table.add_column("judged by", overflow="fold")
        titles = ("best", "loss", "at epoch", "last")
    for title in ("epochs", *titles, "images/s"):
        table.add_column(title, justify="right")
    for record in records:
        speed = record.images_per_s
        table.add_row(
            os.path.relpath(record.folder.path, below),
            network_of(record.config),
            str(record.config.get("data", "")),
            str(record.config.get("seed", "")),
            record.state,
            *([] if classes_alone else [record.monitor]),
            f"{record.epochs_done}/{record.config.get('epochs', '?')}",
            *_figures(record, *(("top1", "top5") if classes_alone else (record.monitor, "loss"))),
            "-" if speed is None else f"{speed:.0f}",
        )
    return table


def _figures(record: RunRecord, first: str, second: str) -> list[str]:
    """Two figures of the best epoch, which one that is, and the first figure of the last one."""
    best, key = record.best, record.judged
    if best is None:
        return ["-"] * 4
    last = record.evaluations[-1] if record.evaluations else {}
    return [
        shown(best.get(key + first)),
        shown(best.get(key + second)),
        str(best["epoch"] + 1),
        shown(last.get(key + first)),
    ]
