from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import rlawrap
from rlawrap.cli import main
from rlawrap.models import get_model
from rlawrap.train import TrainConfig, train
from tests.train.toys import ToyImages, toy_config


def run(*arguments: object) -> int:
    """The exit code of one call; the command's output is for capsys to read."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model: nn.Module = get_model("rla_cifar_resnet20", num_classes=4)
    return rlawrap.save(model, tmp_path / "net.safetensors")


def test_a_name_is_drawn_beside_the_printed_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.svg"
    assert run("show", "cifar_resnet20", "--k", 4, "-o", path) == 0
    out = capsys.readouterr().out
    assert out.startswith("CifarResNet at 3x32x32: 9 blocks in 3 stages")
    assert out.splitlines()[-1] == str(path)
    svg = path.read_text(encoding="utf-8")
    assert "layer3.2" in svg
    assert "h: 4 channels" in svg


def test_a_saved_model_is_measured_on_images_and_told_as_json(
    saved: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.svg"
    assert run("show", saved, "--gates", image, image, "--json", "-o", out) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["what"], told["source"], told["file"]) == ("gates", "2 images", str(out))
    assert len(told["gates"]) == 10
    assert run("show", saved, "--hidden", image, "-o", out, "--dark") == 0
    assert "#14181f" in out.read_text(encoding="utf-8")
    assert run("show", saved, "--cam", image, "--target", 2, "-o", out) == 0
    assert "where it sees class 2" in out.read_text(encoding="utf-8")


def test_a_run_knows_its_classes_and_how_its_images_are_made_ready(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(
        arch="rla_cifar_resnet20", model_kwargs={"in_channels": 1}, subset=20, epochs=1,
        batch_size=10, workers=0, output=str(tmp_path / "run"),
    )  # fmt: skip
    train(config)
    capsys.readouterr()
    path = tmp_path / "cam.svg"
    assert run("show", tmp_path / "run", "--cam", image, "--target", "Bag", "-o", path) == 0
    assert ": Bag, seen at " in capsys.readouterr().out
    assert "32×32 pixels" in path.read_text(encoding="utf-8")


def test_a_run_whose_network_file_was_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, moved, folder = tmp_path / "first.py", tmp_path / "moved.py", tmp_path / "run"
    first.write_text(
        "import rlawrap\n\n\n"
        "def net(num_classes):\n    return rlawrap.models.rla_cifar_resnet20(num_classes=4)\n"
    )
    train(toy_config(folder, epochs=1, arch=f"{first}:net"), data=(ToyImages(), ToyImages(10)))
    first.rename(moved)
    assert run("show", folder, "-o", tmp_path / "plan.svg") == 2
    assert "--arch FILE.py:NAME" in capsys.readouterr().err
    assert run("show", folder, "--arch", f"{moved}:net", "-o", tmp_path / "plan.svg") == 0
    assert (tmp_path / "plan.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar_resnet20", "--arch", "moved.py:net"], "network of a run now. Leave it out"),
        (["resnet18", "-o", "a.gif"], "a.gif: a picture is written as .svg or .png"),
        (["resnet18", "--gates", "--cam", "a.png"], "--cam and --gates are a picture each"),
        (["resnet18", "--cam", "a.png", "b.png", "c.png"], "images go behind --gates"),
        (["resnet18", "--target", "3"], "--target goes with --cam IMAGE"),
        (["cifar_resnet20", "--gates"], "--rla at the command line"),
        (["rla_cifar_resnet20", "--hidden", "none.png"], "none.png: no such image file"),
        (["none.safetensors"], "no such network"),
    ],
)
def test_bad_input_is_one_message(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("show", *arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_goes_without_the_options_of_a_name(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("show", saved, "--k", 4) == 2
    assert "a file knows its network; --k 4 is for one by its name" in capsys.readouterr().err
