"""Train an RLA-ResNet on 32x32 images from Python.

    python examples/train_cifar.py                          # the images that come with rlawrap
    python examples/train_cifar.py --data cifar10 --epochs 160 --arch rla_cifar_resnet56
    torchrun --nproc-per-node 2 examples/train_cifar.py     # the same run in two processes

Stop it with Ctrl-C and start it again: it goes on where it was.
"""

from __future__ import annotations

import argparse

from rlawrap.train import train
from rlawrap.train.config.recipes import get_recipe
from rlawrap.train.records.plot import plot_runs


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an RLA-ResNet on 32x32 images.")
    parser.add_argument("--data", default="builtin", help="builtin, cifar10, cifar100, a folder")
    parser.add_argument("--arch", default="rla_cifar_resnet20")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--subset", type=int, help="train on this many images only")
    parser.add_argument("--output", default="runs/cifar")
    arguments = parser.parse_args()

    config = get_recipe("rla-32").config(
        arch=arguments.arch,
        data=arguments.data,
        subset=arguments.subset,
        epochs=arguments.epochs,
        warmup_epochs=0.5,  # the recipe's 1.0 is for its 160 epochs
        output=arguments.output,
        resume="auto",
    )
    result = train(config)
    if result.best is not None:
        print(f"{result.status}: best top-1 {result.best['top1']:.2f} %")
        print(*plot_runs([result.output]))


if __name__ == "__main__":
    main()
