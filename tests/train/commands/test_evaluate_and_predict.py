"""What a trained network is worth, and what it takes images for, from the command line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from typer.testing import CliRunner

import rlawrap
from rlawrap.cli import app
from rlawrap.errors import CheckpointError, ConfigError, DataError
from rlawrap.models import get_model
from rlawrap.train import TrainResult, load_model, train
from rlawrap.train.data import open_data
from rlawrap.train.loop import plain_weights
from rlawrap.train.loop.plain_weights import class_names, count_classes
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
    (tmp_path / "found.csv").write_text("of before")
    with pytest.raises(DataError, match="a broken image"):
        call(*given[:-1], "fatal", "-o", tmp_path / "found.csv")
    assert (tmp_path / "found.csv").read_text() == "of before"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in it"):
        list(predict(result.output, [tmp_path / "empty"]))
    with pytest.raises(DataError, match="no such file"):
        list(predict(result.output, [tmp_path / "missing.png"]))
    with pytest.raises(ConfigError, match=r"end it in \.csv"):
        call(*given, "-o", tmp_path / "found.txt")


def test_broken_images_may_be_left_out_of_a_judgement(tmp_path: Path) -> None:
    torch.save(get_model("cifar_resnet20", num_classes=2).state_dict(), tmp_path / "two.pth")
    for name in ("bag", "boot"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for n in range(2):
            Image.new("L", (8, 8), 90 * n).save(tmp_path / "data" / name / f"{n}.png")
    (tmp_path / "data" / "bag" / "0.png").write_bytes(b"no image")
    given = ("evaluate", tmp_path / "two.pth", tmp_path / "data", "--arch", "cifar_resnet20")
    given = (*given, "--image-size", 8, "--workers", 0)
    with pytest.raises(DataError, match=r"0\.png: a broken image .*--on-bad-image skip"):
        call(*given)
    figures = json.loads(call(*given, "--on-bad-image", "skip"))
    assert (figures["images"], figures["skipped"]) == (3, 1)
    table = call(*given, "--on-bad-image", "skip", "--table")
    assert "3 images, 1 broken ones left out" in table


def test_names_that_are_no_utf8_come_escaped_in_csv(result: TrainResult, tmp_path: Path) -> None:
    image = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(image, "wb") as file:
            Image.new("L", (8, 8)).save(file, "png")
    except OSError:
        pytest.skip("the file system takes no such name")
    given = ("predict", os.fsdecode(image), "--weights", result.output, "--top", 1)
    call(*given, "-o", tmp_path / "found.csv")
    _, (name, _, _) = csv.reader((tmp_path / "found.csv").read_text().splitlines())
    assert name == f"{tmp_path}/caf\\xe9.png"
    assert call(*given).splitlines()[1].startswith(name)
    (found,) = json.loads(call(*given, "--format", "json"))
    assert os.fsencode(found["file"]) == image


def test_data_of_ones_own_is_prepared_by_it_alone(tmp_path: Path, pictures: Path) -> None:
    with toy_models():
        train(toy_config(tmp_path / "toy", epochs=1), data=(ToyImages(), ToyImages(10)))
        with pytest.raises(CheckpointError, match="a data set of your own"):
            list(predict(tmp_path / "toy", [pictures]))


NAMES = ("bag", "boot", "coat")


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_predict_takes_weights_whose_network_is_named(
    kind: str, pictures: Path, tmp_path: Path
) -> None:
    base = get_model("cifar_resnet20", num_classes=3)
    file, options = tmp_path / "weights.safetensors", ["--image-size", 8]
    if kind == "torch":
        model, file = base.eval(), tmp_path / "weights.pth"
        state = {f"module.{name}": value for name, value in model.state_dict().items()}
        numbers = {name: number for number, name in reversed([*enumerate(NAMES)])}
        torch.save({"state_dict": state, "class_to_idx": numbers, "epoch": 3}, file)
    else:
        model = rlawrap.apply(base, k=4, init="paper").eval()
        safetensors.torch.save_file(model.state_dict(), file, {"epoch": "3"})
        options += ["--rla", "--k", 4]
    names = NAMES if kind == "torch" else ("0", "1", "2")
    given = ("predict", pictures, "--weights", file, "--arch", "cifar_resnet20", *options)
    found = json.loads(call(*given, "--format", "json"))
    assert [len(each["predictions"]) for each in found] == [3] * 4
    for place in NAMES:  # the same images, as `evaluate` reads a folder of classes
        (tmp_path / "folder" / place).mkdir(parents=True)
        for n, each in enumerate(found):
            image = Path(each["file"]).read_bytes()
            (tmp_path / "folder" / place / f"{n}.png").write_bytes(image)
    data = open_data(tmp_path / "folder", split="test", image_size=8, whole=True)
    with torch.no_grad():
        shares = model(torch.stack([data[n][0] for n in range(4)])).softmax(1)
    for each, row in zip(found, shares, strict=True):
        probabilities, order = row.sort(descending=True)
        assert [p["class"] for p in each["predictions"]] == [names[n] for n in order.tolist()]
        given_shares = [p["probability"] for p in each["predictions"]]
        assert given_shares == pytest.approx(probabilities.tolist(), rel=1e-4)


def test_classes_are_counted_by_the_weights_and_named_by_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = get_model("rla_mobilenetv2_k6", num_classes=4)
    state = {f"module.{n}": v for n, v in rlawrap.official_state_dict(model).items()}
    torch.save({"state_dict": state, "classes": 4}, tmp_path / "theirs.pth")
    config = toy_config(tmp_path, arch="rla_mobilenetv2_k6")
    monkeypatch.setattr(plain_weights, "build_model", lambda config, classes: model)
    assert count_classes(tmp_path / "theirs.pth", config) == 4
    assert class_names(tmp_path / "theirs.pth") is None
    config = config.replace(model_kwargs={"num_classes": 7})
    assert count_classes(tmp_path / "theirs.pth", config) == 7
    file = tmp_path / "named.safetensors"
    for told, names in (({"classes": json.dumps(NAMES)}, NAMES), ({"classes": "[1]"}, None)):
        safetensors.torch.save_file({"x": torch.zeros(1)}, file, told)
        assert class_names(file) == names
    for numbers, names in (
        ({"b": 1, "a": 0}, ("a", "b")),
        ({"b": 2, "a": 0}, None),
        ({"a": [0]}, None),
    ):
        torch.save({"class_to_idx": numbers}, tmp_path / "named.pth")
        assert class_names(tmp_path / "named.pth") == names


def test_weights_that_cannot_be_predicted_with(
    result: TrainResult, pictures: Path, tmp_path: Path
) -> None:
    model = get_model("cifar_resnet20", num_classes=3)
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": model.state_dict(), "classes": ["a", "b"]}, file)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    for path in (file, tmp_path / "weights.safetensors"):
        with pytest.raises(
            CheckpointError, match=r"`rlawrap predict IMAGES --weights .* --arch NA"
        ):
            list(predict(path, [pictures]))
    with pytest.raises(CheckpointError, match="names 2 classes, but its weights tell 3 apart"):
        list(predict(file, [pictures], arch="cifar_resnet20"))
    with pytest.raises(CheckpointError, match="not weights of this network"):
        list(predict(tmp_path / "weights.safetensors", [pictures], arch="cifar_resnet32"))
    with pytest.raises(ConfigError, match="for weights that are no run's"):
        list(predict(result.output, [pictures], rla={}))
    with pytest.raises(CheckpointError, match="no such file"):
        list(predict(tmp_path / "none.safetensors", [pictures], arch="cifar_resnet20"))
