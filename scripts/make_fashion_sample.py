"""Make the sample of Fashion-MNIST that comes with rlawrap.

    python scripts/make_fashion_sample.py FOLDER [--out rlawrap/train/data/fashion_sample]

FOLDER holds the four IDX files of the whole set (Debian: package dataset-fashion-mnist, folder
/usr/share/datasets/fashion-mnist). Of each class 600 training and 100 test images are drawn with
the seed below and written in the order of the set. The same FOLDER gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlawrap.train.data.arrays import read_idx, write_idx
from rlawrap.train.data.fashion import CLASSES, SAMPLE

SEED = 20211021
PER_CLASS = {"train": 600, "t10k": 100}

LICENCE = """\
The images and labels in this folder are a sample of Fashion-MNIST
(https://github.com/zalandoresearch/fashion-mnist; Han Xiao, Kashif Rasul and Roland Vollgraf,
"Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017),
drawn by scripts/make_fashion_sample.py, and come under its licence:

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def draw(labels: NDArray[np.uint8], per_class: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Numbers of `per_class` images of each class, ascending."""
    picks = [
        rng.choice(np.flatnonzero(labels == number), per_class, replace=False)
        for number in range(len(CLASSES))
    ]
    return np.sort(np.concatenate(picks))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the embedded sample of Fashion-MNIST.")
    parser.add_argument("folder", type=Path, help="the four IDX files of the whole set")
    parser.add_argument("--out", type=Path, default=SAMPLE)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    for prefix, per_class in PER_CLASS.items():
        images, labels = (
            read_idx(arguments.folder / f"{prefix}-{kind}-ubyte.gz")
            for kind in ("images-idx3", "labels-idx1")
        )
        pixels = images / 255
        print(f"{prefix}: {len(images)} images, mean {pixels.mean():.4f}, std {pixels.std():.4f}")
        chosen = draw(labels, per_class, rng)
        for array, kind in ((images, "images-idx3"), (labels, "labels-idx1")):
            path = arguments.out / f"{prefix}-{kind}-ubyte.gz"
            write_idx(path, array[chosen])
            content = path.read_bytes()
            print(f"  {path.name}: {len(content)} bytes, {hashlib.sha256(content).hexdigest()}")
    (arguments.out / "LICENSE").write_text(LICENCE)


if __name__ == "__main__":
    main()
