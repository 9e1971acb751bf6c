"""How soon the first batch comes from a folder of very many images.

    python benchmarks/image_index.py [--files 200000] [--folder KEEP_HERE]

Makes a tree of 1,000 class folders of tiny JPEG files (about 4 KB of disk each) and times, each in
a new process, from calling `open_data` to the first batch of 256 from two loader workers: with no
index, with the index of the first run, and after one file was added. torchvision's ImageFolder on
the same tree stands beside it.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLASSES = 1000
BATCH = 256

OURS = """
import time, sys
import torch
from torch.utils.data import DataLoader
from rlawrap.train.data import open_data, worker_init
start = time.perf_counter()
data = open_data(sys.argv[1], image_size=32)
opened = time.perf_counter() - start
order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
batch = next(iter(DataLoader(data, 256, sampler=order, num_workers=2, worker_init_fn=worker_init)))
print(opened, time.perf_counter() - start, len(data), data.fingerprint())
"""

TORCHVISION = """
import time, sys
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
start = time.perf_counter()
steps = v2.Compose([v2.Resize((32, 32)), v2.PILToTensor()])
data = ImageFolder(sys.argv[1] + "/train", steps)
opened = time.perf_counter() - start
batch = next(iter(DataLoader(data, 256, shuffle=True, num_workers=2)))
print(opened, time.perf_counter() - start, len(data), "-")
"""


def make_tree(root: Path, files: int) -> None:
    """`files` JPEG names in root/train, spread over the class folders, and a few in root/val."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    originals = []
    for _ in range(64):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, "JPEG")
        originals.append(file.getvalue())
    for number in range(CLASSES):
        for split, count in (("train", files // CLASSES), ("val", 1)):
            folder = root / split / f"n{number:08}"
            folder.mkdir(parents=True)
            for image in range(count):
                name = folder / f"n{number:08}_{image:06}.JPEG"
                name.write_bytes(originals[image % 64])


def timed(program: str, root: Path, cache: Path) -> tuple[float, float, int, str]:
    """Seconds to open and to the first batch, images and fingerprint, from a new process."""
    result = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "RLAWRAP_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )
    opened, first, count, fingerprint = result.stdout.split()
    return float(opened), float(first), int(count), fingerprint


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to the first batch of a large folder.")
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="keep the tree here and use it again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.folder or Path(temporary)) / f"tree-{arguments.files}"
        cache = Path(temporary) / "cache"
        if not root.exists():
            start = time.perf_counter()
            make_tree(root, arguments.files)
            print(f"made {arguments.files} files in {time.perf_counter() - start:.1f} s")
        time.sleep(2.5)  # a tree changed this moment is not cached, see data/index.py
        print(f"{'':24}{'open':>9}{'first batch of 256':>21}")
        prints = []
        for title, program in (
            ("no index", OURS),
            ("index cached", OURS),
            ("index cached, again", OURS),
            ("one file added", OURS),
            ("torchvision ImageFolder", TORCHVISION),
        ):
            if title == "one file added":
                name = root / "train" / "n00000000" / "added.JPEG"
                name.write_bytes((name.parent / "n00000000_000000.JPEG").read_bytes())
            opened, first, count, fingerprint = timed(program, root, cache)
            prints.append((count, fingerprint))
            print(f"{title:24}{opened:7.2f} s{first:19.2f} s   {count} images")
        name.unlink()
        assert prints[0] == prints[1] == prints[2] != prints[3], prints
        size = sum(file.stat().st_size for file in (cache / "index").iterdir())
        print(f"index: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
