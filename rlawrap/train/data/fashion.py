"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017), whole or as the sample that comes with rlawrap."""

from __future__ import annotations

from pathlib import Path

from rlawrap.errors import DataError
from rlawrap.train.data.arrays import ArraySource, read_idx
from rlawrap.train.data.dataset import Split
from rlawrap.train.data.download import cache_folder, download_folder, download_with_torchvision

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Mean and deviation of the 60,000 training images, pixels in 0..1 (scripts/make_fashion_sample.py
# prints them).
MEAN, STD = (0.2860,), (0.3530,)

SAMPLE = Path(__file__).with_name("fashion_sample")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}


def read_folder(folder: Path, split: Split, description: str) -> ArraySource:
    """The images of one split from the folder that holds its two IDX files."""
    images, labels = (
        _idx_file(folder, f"{PREFIX[split]}-{kind}-ubyte")
        for kind in ("images-idx3", "labels-idx1")
    )
    if images is None or labels is None:
        raise DataError(
            f"{folder}: no {PREFIX[split]}-images-idx3-ubyte(.gz) with its labels-idx1 file."
        )
    return ArraySource(
        read_idx(images),
        read_idx(labels),
        classes=CLASSES,
        mean=MEAN,
        std=STD,
        description=description,
    )


def _idx_file(folder: Path, name: str) -> Path | None:
    found = (path for path in (folder / f"{name}.gz", folder / name) if path.is_file())
    return next(found, None)


def holds(folder: Path, split: Split) -> bool:
    """Whether a folder holds the image file of that split."""
    return _idx_file(folder, f"{PREFIX[split]}-images-idx3-ubyte") is not None


def open_sample(split: Split) -> ArraySource:
    """The embedded sample: 6,000 training and 1,000 test images, every class equally often."""
    return read_folder(SAMPLE, split, "builtin (sample of Fashion-MNIST)")


def open_fashion_mnist(root: Path | None, split: Split) -> ArraySource:
    """All 70,000 images: from `root`, Debian's package folder, or downloaded by torchvision.

    Raises `DataError` when `root` is given and does not exist, or the download fails.
    """
    if root is not None and not root.is_dir():
        raise DataError(f"fashion-mnist: the folder {root} does not exist.")
    home = cache_folder() if root is None else root
    places = [] if root is None else [root]
    places += [] if home is None else [home / "FashionMNIST" / "raw"]
    places.append(DEBIAN)
    for folder in places:
        if holds(folder, split):
            return read_folder(folder, split, f"fashion-mnist in {folder}")
    home = download_folder("fashion-mnist", root)
    download_with_torchvision(
        "FashionMNIST",
        home,
        split,
        advice="Put its four .gz files in a folder and pass that as root, or install Debian's "
        "package dataset-fashion-mnist; the sample 'builtin' needs no download.",
    )
    folder = home / "FashionMNIST" / "raw"
    return read_folder(folder, split, f"fashion-mnist in {folder}")
