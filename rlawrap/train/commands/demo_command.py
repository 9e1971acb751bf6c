"""`rlawrap demo`: a plain ResNet and its RLA form, trained one after the other on real images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from rlawrap.errors import TrainError
from rlawrap.streams import steady_output
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.data import open_data
from rlawrap.train.loop.engine import train
from rlawrap.train.loop.loading import load_model
from rlawrap.train.records.plot import plot_runs
from rlawrap.train.records.runs import RunRecord, loading_line, read_run

if TYPE_CHECKING:
    from rich.table import Table

NETWORKS = ("cifar_resnet20", "rla_cifar_resnet20")


def demo_configs(output: Path, epochs: int, subset: int | None = None) -> list[TrainConfig]:
    """The two runs: same data, seed and budget; only the network differs.

    >>> [config.arch for config in demo_configs(Path("runs/demo"), epochs=2)]
    ['cifar_resnet20', 'rla_cifar_resnet20']
    """
    return [
        TrainConfig(
            arch=name,
            model_kwargs={"in_channels": 1},
            data="builtin",
            subset=subset,
            epochs=epochs,
            batch_size=64,
            lr=0.1,
            warmup_epochs=0.5,
            weight_decay=5e-4,
            workers=0,
            log_every=20,
            output=(output / name).as_posix(),
            resume="auto",
        )
        for name in NETWORKS
    ]


def results_table(records: Sequence[RunRecord]) -> Table:
    """What each network costs and what came out."""
    from rich.table import Table

    from rlawrap.cost import cost

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("network")
    for title in (
        "params", "MACs", "top-1 %, last epoch", "best epoch", "top-5 %", "training images/s",
    ):  # fmt: skip
        table.add_column(title, justify="right")
    for record in records:
        best, last = record.best, record.evaluations[-1]
        total = cost(load_model(record.folder.path), open_data().image_size).total
        table.add_row(
            record.config["arch"],
            f"{total.params:,}",
            f"{total.macs:,}",
            f"{last['top1']:.2f}",
            "-" if best is None else f"{best['top1']:.2f}",
            f"{last['top5']:.2f}",
            f"{record.images_per_s or 0:.0f}",
        )
    return table


def describe_data() -> str:
    """A line about the embedded images."""
    train_images, test_images = open_data(split="train"), open_data(split="test")
    size = train_images.image_size
    return (
        f"{train_images.description}: {len(train_images):,} training and {len(test_images):,} "
        f"test images, {len(train_images.classes)} classes, {size}x{size}"
    )


def try_network(path: Path, count: int = 5) -> list[str]:
    """The first test images: true class -> what a trained network takes it for."""
    model = load_model(path)
    data = open_data(split="test", in_channels=1)
    with torch.no_grad():
        guesses = model(torch.stack([data[i][0] for i in range(count)])).argmax(1).tolist()
    return [
        f"{data.classes[data.labels[i]]} -> {data.classes[guess]}"
        for i, guess in enumerate(guesses)
    ]


def demo_command(
    output: Annotated[Path, typer.Option(help="folder for the runs")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(help="passes over the training images", min=1)] = 2,
    subset: Annotated[
        int | None, typer.Option(help="train on this many of the 6,000 images", min=1)
    ] = None,
) -> None:
    """Train a plain ResNet-20 and its RLA form on the embedded images; minutes on a CPU."""
    with steady_output():
        run_demo(output, epochs, subset)


def run_demo(output: Path, epochs: int, subset: int | None) -> None:
    """Train both networks and show what came out. Raises `TrainError` when a run was stopped."""
    from rich.console import Console

    import rlawrap
    from rlawrap.models import get_model

    print(describe_data())
    print(f"\nThe plan: where the hidden state goes in {NETWORKS[0]}\n")
    print(rlawrap.inspect(get_model(NETWORKS[0], in_channels=1)))
    configs = demo_configs(output, epochs, subset)
    for config in configs:
        print(f"\nTraining {config.arch} into {config.output}\n", flush=True)
        if train(config).status != "finished":
            raise TrainError("stopped; the same command goes on where it is.")
    paths = [Path(config.output) for config in configs]
    plots = plot_runs(paths, output / "curves")
    print("\nSame images, seed and budget. One seed on 1,000 test images: no verdict.\n")
    console = Console(width=None if Console().is_terminal else 120)
    console.print(results_table([read_run(path) for path in paths]))
    print(f"\nCurves: {', '.join(map(str, plots))}")
    print(f"Load the second network in Python:\n\n    {loading_line(paths[1])}\n")
    print(f"Loaded so, it says of the first test images: {', '.join(try_network(paths[1]))}")
