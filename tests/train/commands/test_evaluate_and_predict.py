"""What a trained network is worth, and what it takes images for, from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rlawrap.cli import app
from rlawrap.errors import CheckpointError, ConfigError, DataError
from rlawrap.train import TrainResult, load_model, train
from rlawrap.train.data import open_data
from rlawrap.train.loop.predicting import predict
from tests.train.toys import ToyImages, toy_config, toy_models


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    folder = tmp_path_factory.mktemp("run")
    return train(
        toy_config(folder, arch="cifar_resnet20", epochs=1, subset=40, batch_size=20, image_size=8)
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four of the test images as files."""
    source = open_data(split="test").source
    (tmp_path / "pictures" / "below").mkdir(parents=True)
    for n in range(4):
        name = f"below/{n}.png" if n > 1 else f"{n}.png"
        Image.fromarray(source.read(n)[0].numpy()).save(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "notes.txt").write_text("no image")
    return tmp_path / "pictures"


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_evaluate_prints_the_figures_of_the_best_epoch(result: TrainResult) -> None:
    given = ("evaluate", result.output, "--workers", 0, "--per-class", "--confusion")
    figures = json.loads(call(*given))
    assert result.best is not None
    assert figures["images"] == 1000
    assert figures["top1"] == pytest.approx(result.best["ema_top1"])
    assert figures["loss"] == pytest.approx(result.best["ema_loss"], rel=1e-6)
    names = list(open_data().classes)
    classes, rows = figures["classes"], figures["confusion"]["rows"]
    assert [each["name"] for each in classes] == figures["confusion"]["classes"] == names
    assert [sum(row) for row in rows] == [each["images"] for each in classes] == [100] * 10
    assert [row[n] for n, row in enumerate(rows)] == [each["top1"] for each in classes]
    assert sum(each["top1"] for each in classes) / 10 == pytest.approx(figures["top1"])
    taken = [sum(column) for column in zip(*rows, strict=True)]
    for n, each in enumerate(classes):
        share = 100 * rows[n][n] / taken[n] if taken[n] else None
        assert each["precision"] == (None if share is None else pytest.approx(share))


def test_evaluate_prints_tables(result: TrainResult) -> None:
    lines = call("evaluate", result.output, "--workers", 0, "--table", "--confusion").splitlines()
    titles = [n for n, line in enumerate(lines) if line.startswith(("class ", "true \\ predicted"))]
    assert len(titles) == 2 and lines[titles[0] + 1].startswith("T-shirt/top")
    assert lines[titles[1] - 2].split()[:2] == ["all", "1,000"]
    assert "Ankle boot" in lines[titles[1]]


def test_predict_says_what_the_network_says(
    result: TrainResult, pictures: Path, tmp_path: Path
) -> None:
    model = load_model(result.output)
    data = open_data(split="test", image_size=8, in_channels=3)
    with torch.no_grad():
        shares = model(torch.stack([data[n][0] for n in range(4)])).softmax(1)
    files = [pictures / "0.png", pictures / "1.png", *(pictures / f"below/{n}.png" for n in (2, 3))]
    for output in (tmp_path / "found.json", tmp_path / "found.csv"):
        given = ("predict", pictures, "--weights", result.output, "--top", 2, "--batch-size", 3)
        assert call(*given, "-o", output) == f"{output}\n"
    found = json.loads((tmp_path / "found.json").read_text())
    rows = list(csv.reader((tmp_path / "found.csv").read_text().splitlines()))
    assert rows[0] == ["file", "class1", "probability1", "class2", "probability2"]
    for n, (values, row) in enumerate(zip(found, rows[1:], strict=True)):
        probabilities, numbers = shares[n].topk(2)
        assert values["file"] == row[0] == str(files[n])
        names = [data.classes[number] for number in numbers.tolist()]
        assert [each["class"] for each in values["predictions"]] == names == [row[1], row[3]]
        given_shares = [each["probability"] for each in values["predictions"]]
        assert given_shares == pytest.approx(probabilities.tolist(), rel=1e-4)
        assert float(row[2]) == pytest.approx(given_shares[0], abs=1e-6)


def test_broken_images_and_none_at_all(result: TrainResult, pictures: Path, tmp_path: Path) -> None:
    (pictures / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png: a broken image"):
        list(predict(result.output, [pictures]))
    given = ("predict", pictures, "--weights", result.output, "--on-bad-image", "skip")
    done = CliRunner().invoke(app, [*map(str, given), "--format", "json"])
    assert [Path(each["file"]).name for each in json.loads(done.stdout)] == [
        "0.png", "2.png", "3.png",
    ]  # fmt: skip
    assert "left out" in done.stderr
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in it"):
        list(predict(result.output, [tmp_path / "empty"]))
    with pytest.raises(DataError, match="no such file"):
        list(predict(result.output, [tmp_path / "missing.png"]))
    with pytest.raises(ConfigError, match=r"end it in \.csv"):
        call(*given, "-o", tmp_path / "found.txt")


def test_data_of_ones_own_is_prepared_by_it_alone(tmp_path: Path, pictures: Path) -> None:
    with toy_models():
        train(toy_config(tmp_path / "toy", epochs=1), data=(ToyImages(), ToyImages(10)))
        with pytest.raises(CheckpointError, match="a data set of your own"):
            list(predict(tmp_path / "toy", [pictures]))
