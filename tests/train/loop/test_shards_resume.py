"""A run on tar shards that is taken up in the middle of an epoch ends as if it never stopped."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlawrap.train import TrainConfig, train
from rlawrap.train.store import checkpoint


def write_shards(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("train-0", 7), ("train-1", 6), ("val-0", 4)):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for number in range(count):
                image = io.BytesIO()
                pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(image, "PNG")
                label = str(number % 2).encode()
                for ending, content in (("png", image.getvalue()), ("cls", label)):
                    member = tarfile.TarInfo(f"{number:03}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("workers", [0, 1])
def test_mid_epoch_resume_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv("RLAWRAP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards")
    config = TrainConfig(
        arch="rla_cifar_resnet20",
        data=str(tmp_path / "shards"),
        image_size=16,
        epochs=2,
        batch_size=4,
        workers=0,
        save_every=1,
        keep=99,
        output=str(tmp_path / "whole"),
    )
    assert train(config).status == "finished"
    saved = {(s.epoch, s.step): s.path for s in checkpoint.saved(tmp_path / "whole/checkpoints")}
    resumed = config.replace(
        output=str(tmp_path / "resumed"), resume=str(saved[1, 2]), workers=workers
    )
    assert train(resumed).status == "finished"
    states = [
        checkpoint.read(checkpoint.saved(tmp_path / name / "checkpoints")[0].path)
        for name in ("whole", "resumed")
    ]
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name]), name
    assert states[0]["standing"]["last"] == states[1]["standing"]["last"]
