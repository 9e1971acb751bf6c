"""One process of an elastic run on toy images: `torchrun ... -m tests.train.elastic_worker FOLDER`.

FOLDER holds config.json; the process leaves its number in FOLDER/pids.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from rlawrap.train.commands import torchrun_process
from rlawrap.train.commands.options import read_config
from rlawrap.train.loop import engine
from tests.train.toys import ToyImages, toy_models


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    (folder / "pids").mkdir(exist_ok=True)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    (folder / "pids" / f"{attempt}-{os.environ['RANK']}-{os.getpid()}").touch()
    config = read_config(str(folder / "config.json"))
    data = (ToyImages(60, delay=0.004), ToyImages(10, name="test"))
    train = engine.train
    engine.train = lambda config: train(config, data=data)  # type: ignore[assignment]
    with toy_models():
        torchrun_process.main(["--config", str(folder / "config.json"), "--output", config.output])


if __name__ == "__main__":
    main()
