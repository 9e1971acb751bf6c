"""How does accuracy depend on k, the channels of the hidden state? A small grid from Python.

    python examples/ablate_k.py                       # minutes on a CPU
    python examples/ablate_k.py --k 0 4 8 16 32 --epochs 10 --seeds 3 --jobs 2

The same from the shell: rlawrap ablate --arch cifar_resnet20 --k 0 4 8 --seeds 2
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rlawrap.train import TrainConfig
from rlawrap.train.ablation.grid import check_grid, make_grid
from rlawrap.train.ablation.jobs import run_grid
from rlawrap.train.ablation.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy against k.")
    parser.add_argument("--k", type=int, nargs="+", default=[0, 4, 8])
    parser.add_argument("--cell", nargs="+", default=["conv"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--subset", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/ablate_k"))
    arguments = parser.parse_args()

    shared = TrainConfig(
        arch="cifar_resnet20",
        model_kwargs={"in_channels": 1},
        image_size=16,
        subset=arguments.subset,
        epochs=arguments.epochs,
        batch_size=64,
        workers=0,
        output=str(arguments.output),
    )
    runs = make_grid(shared, ks=arguments.k, cells=arguments.cell, seeds=arguments.seeds)
    check_grid(runs)
    run_grid(runs, jobs=arguments.jobs, output=arguments.output)
    written = write_report(runs, arguments.output)
    print((arguments.output / "results.md").read_text())
    print(*written, sep="\n")


if __name__ == "__main__":
    main()
