"""`rlawrap export`: whatever names a network, and one message for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import rlawrap
from rlawrap.cli import main
from rlawrap.deploy.folding import IMAGENET
from rlawrap.train import load_model, train
from rlawrap.train.commands import export_command
from rlawrap.train.loop import loading
from tests.nets import relative
from tests.train.toys import ToyImages, toy_config

CODE = "from tests.deploy.test_export import net\n"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["export", *arguments])
    return int(stop.value.code or 0)


def test_a_function_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_export_net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    name, options = "my_export_net.py:net", ("--to", "pt2", "--json", "--input", "1x3x32x32")
    assert run(name, "--rla", "--k", "2", *options, "-o", "net.pt2") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == "net.pt2" and told["network"] == "RLASequential"
    assert told["inputs"] == ["float32 [batch, 3, height, width]"] and told["difference"] < 1e-5


def test_files_and_run_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = rlawrap.models.cifar_resnet20(num_classes=3).eval()
    saved = rlawrap.save(model, tmp_path / "net.safetensors")
    again = export_command.saved_network(str(saved), "")
    x = torch.randn(1, 3, 32, 32)
    assert again is not None and relative(model(x), again(x)) == 0
    monkeypatch.setattr(loading, "load_model", lambda path, arch: {tmp_path: model}[path])
    assert export_command.saved_network(str(tmp_path), "") is model
    assert export_command.saved_network("torchvision:resnet18", " --rla") is None
    with pytest.raises(rlawrap.ConfigError, match="leave out the options"):
        export_command.saved_network(str(saved), " --rla")


def test_a_run_whose_network_file_was_moved(tmp_path: Path) -> None:
    first, moved, run_folder = tmp_path / "first.py", tmp_path / "moved.py", tmp_path / "run"
    code = "from tests.train import toys\n\ndef net(num_classes):\n    return toys.toy_net()\n"
    first.write_text(code)
    config = toy_config(run_folder, epochs=1, arch=f"{first}:net")
    train(config, data=(ToyImages(), ToyImages(10)))
    first.rename(moved)
    with pytest.raises(rlawrap.CheckpointError, match=r"--arch FILE\.py:NAME"):
        export_command.saved_network(str(run_folder), "")
    model = export_command.saved_network(str(run_folder), "", f"{moved}:net")
    x = torch.randn(2, 3, 8, 8)
    again = load_model(run_folder, arch=f"{moved}:net")
    assert model is not None and relative(again(x), model(x)) == 0
    with pytest.raises(rlawrap.ConfigError, match=r"network of a run now\. Leave it out"):
        export_command.saved_network("cifar_resnet20", "", "moved.py:net")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar_resnet20", "--to", "tflite", "-o", "x.tflite"], "no format"),
        (["cifar_resnet20", "--to", "onnx", "-o", "none/x.onnx"], "cannot be written"),
        (["cifar_resnet20", "--to", "onnx", "-o", "x.onnx", "--size", "big"], "--size"),
        (["cifar_resnet20", "--to", "onnx", "-o", "x.onnx", "--normalize", "1,2"], "MEAN/STD"),
        (["nothing.safetensors", "--to", "onnx", "-o", "x.onnx"], "nothing.safetensors"),
    ],
)
def test_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(*arguments) == 2
    told = capsys.readouterr()
    assert message in told.err and told.out == "" and "Traceback" not in told.err


def test_normalization() -> None:
    assert export_command.parse_normalization("imagenet") == IMAGENET
