from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import rlawrap
from rlawrap.cli import main
from rlawrap.cost import measure
from rlawrap.networks import find_network


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


def test_cost_names_a_command_that_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.conv(a) - self.conv(b)

    monkeypatch.setattr(measure, "build_network", lambda name: Pair())
    assert run("cost", "pair") == 2
    words = capsys.readouterr().err.partition("this call works: ")[2].split()
    assert words == "rlawrap cost pair --input 1x3x224x224 --input 1x3x224x224".split()
    assert run(*words[1:]) == 0
    assert f"{2 * 4 * 27 * 222**2:,}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "nothing*"], "no such name"),
        (["cost", "resnet_18"], "no such network"),
        (["cost", "resnet18", "--size", "big"], "expected a number"),
        (["cost", "resnet18", "--size", "0"], "at least 1"),
        (["cost"], "name a network"),
        (["cost", "--table", "thesis"], "takes 'paper'"),
        (["inspect", "nowhere:resnet18"], "no module nowhere"),
        (["cost", "resnet18", "--in-channels", "0"], "in-channels"),
        (["cost", "resnet18", "--k", "4"], "--k goes with --rla"),
        (["inspect", "resnet18", "--input", "3xbig"], "numbers as 1x3x224x224"),
        (["inspect", "resnet18", "--rla", "--explain"], "leave out --rla"),
        (["wrap", "resnet18", "-o", "none/here.safetensors"], "cannot be written"),
        (["wrap", "nets.py:small", "-o", "x.safetensors"], "there is no file"),
        (["wrap", "resnet18", "-o", "w.pt"], "-o w.pt: it writes safetensors"),
        (["wrap", "resnet18", "-o", ""], "it writes safetensors"),
        (["evaluate", "a" * 300], "rlawrap: File name too long: aaa"),
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


NET = """
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.a(x)

def net(blocks=2):
    return nn.Sequential(nn.Conv1d(2, 4, 3), *[Block() for _ in range(blocks)])
"""


def test_a_function_of_the_users_is_planned_counted_and_wrapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net_here.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    name, three = "net_here.py:net", ("--model-arg", "blocks=3")
    assert run("inspect", name, *three, "--input", "1x2x64", "--json") == 0
    plan = rlawrap.Plan.from_dict(json.loads(capsys.readouterr().out))
    assert [block.path for block in plan.blocks] == ["1", "2", "3"]

    assert run("inspect", name, *three, "--rla", "--k", "3", "--blocks", "[12]", "--json") == 0
    plan = rlawrap.Plan.from_dict(json.loads(capsys.readouterr().out))
    assert [block.path for block in plan.blocks] == ["1", "2"]

    assert run("cost", name, "--size", "64", "--rla", "--k", "3", "--json") == 0
    total = json.loads(capsys.readouterr().out)["total"]
    model = rlawrap.apply(find_network(name).builder(), k=3)
    assert total["params"] == sum(p.numel() for p in model.parameters())

    assert run("wrap", name, "--k", "3", "-o", "net.safetensors") == 0
    assert "read by rlawrap.load('net.safetensors', base=" in capsys.readouterr().out
    base = find_network(name).builder()
    read = rlawrap.load("net.safetensors", base=base)
    assert isinstance(read, rlawrap.RLAModel) and read.rla.config.k == 3


def test_the_call_that_cost_tells_has_the_options_that_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = NET.replace("def net(blocks=2):\n    return nn.Sequential(", FIXED)
    (tmp_path / "fixed_net.py").write_text(fixed)
    monkeypatch.chdir(tmp_path)
    options = ["--model-arg", "blocks=3"]
    assert run("cost", "fixed_net.py:net", *options) == 2
    told = re.search(r"rlawrap (cost fixed_net.py:net .*--size \d+)", capsys.readouterr().err)
    assert told is not None and "--model-arg blocks=3 --size" in told[1]
    assert run(*told[1].split(), "--json") == 0
    base = json.loads(capsys.readouterr().out)["total"]["params"]
    with_h = ["--rla", "--k", "4", "--input", "1x2x77", "--json"]
    assert run("cost", "fixed_net.py:net", *options, *with_h) == 0
    assert json.loads(capsys.readouterr().out)["total"]["params"] > base


#: Takes signals of one length only.
FIXED = """
class Fixed(nn.Sequential):
    def forward(self, x):
        if x.shape[-1] != 77:
            raise ValueError(f"77 samples, not {x.shape[-1]}")
        return super().forward(x)

def net(blocks=2):
    return Fixed("""


def test_inspect_shows_the_plans_of_what_is_rewritten_inside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nets.py"
    file.write_text("from tests.refused import two as towers\n")
    asked = ("inspect", f"{file}:towers", "--rla", "--k", "2", "--rla-arg", 'at="towers.*"')
    assert run(*asked) == 0
    out = capsys.readouterr().out
    assert "towers.a: Sequential at" in out and "towers.b: Sequential at" in out
    assert run(*asked, "--json") == 0
    plans = json.loads(capsys.readouterr().out)
    assert [len(plan["stages"]) for plan in plans.values()] == [1, 1]
