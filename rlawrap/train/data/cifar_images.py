"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), read and downloaded by torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlawrap.errors import DataError
from rlawrap.train.data.arrays import ArraySource
from rlawrap.train.data.dataset import Split
from rlawrap.train.data.download import download_folder, download_with_torchvision

# Mean and deviation per channel over the training images, pixels in 0..1.
STATISTICS = {
    "CIFAR10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def open_cifar(name: str, root: Path | None, split: Split) -> ArraySource:
    """`name` is "CIFAR10" or "CIFAR100"; `root` holds torchvision's folder, or receives it.

    Raises `DataError` when it is not there and cannot be downloaded.
    """
    if root is not None and not root.is_dir():
        raise DataError(f"{name.lower()}: the folder {root} does not exist.")
    data = download_with_torchvision(
        name,
        download_folder(name.lower(), root),
        split,
        advice="Put the python version's archive, unpacked, in a folder and pass that as root.",
    )
    mean, std = STATISTICS[name]
    return ArraySource(
        data.data,
        np.asarray(data.targets),
        classes=tuple(data.classes),
        mean=mean,
        std=std,
        description=f"{name.lower()} in {data.root}",
    )
