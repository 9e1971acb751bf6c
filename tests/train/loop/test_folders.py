"""Folders of images in whole runs: which of them are judged, how they are turned and named."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.train import TrainConfig, evaluate, train
from rlawrap.train.records.runs import read_run
from tests.train.data.trees import write_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAWRAP_CACHE", str(tmp_path / "cache"))


def config_of(data: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "arch": "cifar_resnet20",
        "data": str(data),
        "image_size": 8,
        "epochs": 1,
        "batch_size": 8,
        "workers": 0,
        "progress": "none",
        "output": str(data.parent / "run"),
    }
    return TrainConfig(**{**values, **changes})


def tree(root: Path, count: int, names: tuple[str, ...] = ("cat", "dog")) -> Path:
    for number in range(count):
        for value, name in enumerate(names):
            write_image(root / name / f"{number}.png", 100 * value + number, (8, 8))
    return root


def test_all_of_a_folder_without_splits_is_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tree(tmp_path / "data", 10))
    train(config)
    other = tree(tmp_path / "other", 10)
    (other / "cat" / "notes.txt").write_text("")
    options: dict[str, Any] = {"workers": 0, "device": "cpu"}
    with caplog.at_level(logging.WARNING):
        assert evaluate(config.output, data=str(other), **options).images == 20
    assert "1 files ignored" in caplog.text
    assert evaluate(config.output, data=str(other), split="test", **options).images == 2
    assert evaluate(config.output, data=str(other), split="train", **options).images == 18
    # Most of the run's own folder is what it was trained on.
    assert evaluate(config.output, **options).images == 2
    again = str(tmp_path / "other" / ".." / "data")
    assert evaluate(config.output, data=again, **options).images == 2
    weights = Path(config.output) / "best.pt"
    named: dict[str, Any] = {"arch": "cifar_resnet20", "image_size": 8, **options}
    assert evaluate(weights, data=str(other), **named).images == 20
    tree(tmp_path / "splits" / "train", 3)
    tree(tmp_path / "splits" / "Val", 2)
    assert evaluate(config.output, data=str(tmp_path / "splits"), **options).images == 4


def turned(root: Path, count: int) -> Path:
    """Photographs of an upper or a lower bright half, all stored as turned by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(count):
        for name, rows in (("upper", slice(0, 4)), ("lower", slice(4, 8))):
            pixels = np.full((8, 8, 3), number, np.uint8)
            pixels[rows] = 200
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    return root


def test_the_switch_for_orientations_is_a_part_of_the_run(tmp_path: Path) -> None:
    data = turned(tmp_path / "data", 8)
    on, off = (
        config_of(data, output=str(tmp_path / name), exif_orientation=name == "on")
        for name in ("on", "off")
    )
    losses = {}
    for config in (on, off):
        train(config)
        losses[config.output] = read_run(config.output).evaluations[0]["loss"]
        # It is judged as it was trained.
        judged = evaluate(config.output, workers=0, device="cpu").loss
        assert judged == pytest.approx(losses[config.output], rel=1e-5)
    assert losses[on.output] != pytest.approx(losses[off.output], rel=1e-3)
    other = evaluate(on.output, exif_orientation=False, workers=0, device="cpu").loss
    assert other != pytest.approx(losses[on.output], rel=1e-3)
    with pytest.raises(ConfigError, match="exif_orientation: True there, False now"):
        train(on.replace(exif_orientation=False, resume="auto", epochs=1))


def test_configurations_of_earlier_versions_turned_nothing() -> None:
    values = TrainConfig().to_dict()
    assert values.pop("exif_orientation") is True
    assert TrainConfig.from_dict(values).exif_orientation is False
    assert TrainConfig.from_dict({"epochs": 3}).exif_orientation is True


@pytest.mark.parametrize("progress", ["plain", "bar"])
def test_a_run_on_class_folders_whose_names_are_no_utf8(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], progress: str
) -> None:
    pytest.importorskip("tensorboard")
    names = ("caf\udce9", "thé")
    data = tree(tmp_path / "data\udcff", 4, names)
    (data / names[0] / "x.txt").write_text("")
    config = config_of(data, progress=progress, tensorboard=True)
    train(config)
    assert "1 files ignored" in " ".join(capfd.readouterr().out.split())
    run = Path(config.output)
    with (run / "confusion" / "epoch0001.csv").open(encoding="utf-8") as file:
        assert next(csv.reader(file))[1:] == ["caf\\xe9", "thé"]
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert evaluate(run, workers=0, device="cpu").images == 2
    assert train(config.replace(resume="auto")).status == "finished"
    (data / names[0]).rename(data / "other")
    with pytest.raises(CheckpointError, match=r"caf\\xe9, thé"):
        evaluate(run, workers=0, device="cpu")
