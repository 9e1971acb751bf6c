from __future__ import annotations

import json
import subprocess
import sys

import pytest

import rlawrap
from rlawrap.cli import main


def run(*arguments: str) -> int:
    """The exit code of one call; the command's output is for capsys to read."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == rlawrap.__version__


def test_models_lists_by_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "cifar_resnet*") == 0
    names = capsys.readouterr().out.split()
    assert names == sorted(f"cifar_resnet{d}" for d in (20, 32, 56, 110, 164))


def test_cost_prints_exact_integers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", "cifar_resnet20") == 0
    out = capsys.readouterr().out
    assert "269,722" in out
    assert "40,551,040" in out
    assert "1x3x32x32" in out


def test_cost_as_json_at_another_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", "torchvision:resnet18", "--size", "64x96", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["input_shape"] == [1, 3, 64, 96]
    assert data["total"]["params"] == 11_689_512


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "nothing*"], "no such name"),
        (["cost", "resnet_18"], "no such network"),
        (["cost", "resnet18", "--size", "big"], "expected a number"),
        (["cost", "resnet18", "--size", "0"], "at least 1"),
        (["cost"], "name a network"),
        (["cost", "--table", "thesis"], "takes 'paper'"),
        (["inspect", "nowhere:resnet18"], "unknown source"),
        (["cost", "resnet18", "--in-channels", "0"], "in-channels"),
        (["xyzzy"], "No such command"),
        (["recip"], "'recip': no such command. Did you mean recipe?"),
        (["train", "--k", "8"], "--model-arg k=8"),
        (["train", "--update=post"], "--model-arg update=post"),
        (["train", "--dry-run", "--optimizer", "adamv"], "Nearest: adam"),
        (["train", "--dry-run", "--arch", "rla_resnet5"], "Nearest: rla_resnet50"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out
    for command in ("models", "inspect", "cost"):
        assert command in out
        assert run(command, "--help") == 0


def test_starting_imports_nothing_heavy() -> None:
    """Naming a command must not load the trainer, plots, thop or timm; nor must the package.

    The trainer's commands load torchvision and torchmetrics only once they open images.
    """
    code = (
        "import sys, rlawrap, rlawrap.cli\n"
        "heavy = ['matplotlib', 'thop', 'timm', 'torchvision', 'tensorboard', 'onnx']\n"
        "print([name for name in [*heavy, 'rlawrap.train', 'pydantic'] if name in sys.modules])\n"
        "import rlawrap.train.commands.train_command, rlawrap.train.commands.ablate_command\n"
        "import rlawrap.train.records.plot\n"
        "print([name for name in [*heavy, 'torchmetrics'] if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]
