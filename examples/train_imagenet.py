"""Train RLA-ResNet-50 on ImageNet by the official recipe, or on any folder of images.

    torchrun --nproc-per-node 8 examples/train_imagenet.py IMAGENET --amp bf16 --workers 12

IMAGENET holds train/ and val/ with a folder per class, or tar shards (see docs/data.md). The same
from the shell: rlawrap train IMAGENET --recipe rla-imagenet-resnet --nproc 8

To see it work in a minute on a CPU, without ImageNet:

    python examples/train_imagenet.py builtin --arch rla_cifar_resnet20 --size 32 --epochs 1 \
        --subset 256 --workers 0
"""

from __future__ import annotations

import argparse

from rlawrap.train import train
from rlawrap.train.config.recipes import get_recipe


def main() -> None:
    recipe = get_recipe("rla-imagenet-resnet").config()
    parser = argparse.ArgumentParser(description="Train on ImageNet by the official recipe.")
    parser.add_argument("data", help="folder with train/ and val/, or tar shards")
    parser.add_argument("--arch", default=recipe.arch)
    parser.add_argument("--epochs", type=int, default=recipe.epochs)
    parser.add_argument("--batch-size", type=int, default=recipe.batch_size, help="over all GPUs")
    parser.add_argument("--size", type=int, default=recipe.image_size)
    parser.add_argument("--amp", default=recipe.amp, choices=("none", "bf16", "fp16"))
    parser.add_argument("--workers", type=int, default=8, help="loader processes per GPU")
    parser.add_argument("--subset", type=int, help="train on this many images only")
    parser.add_argument("--output", default="runs/imagenet")
    arguments = parser.parse_args()

    assert recipe.augment is not None
    resize = round(arguments.size * 256 / 224)
    config = recipe.replace(
        arch=arguments.arch,
        data=arguments.data,
        subset=arguments.subset,
        image_size=arguments.size,
        augment=recipe.augment.replace(resize=resize),
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        # The recipe's learning rate belongs to its batch of 256.
        lr=recipe.lr * arguments.batch_size / recipe.batch_size,
        amp=arguments.amp,
        channels_last=arguments.amp != "none",
        workers=arguments.workers,
        on_bad_image="skip",
        output=arguments.output,
        resume="auto",
    )
    result = train(config)
    if result.best is not None:
        print(f"{result.status}: best top-1 {result.best['top1']:.2f} %")


if __name__ == "__main__":
    main()
