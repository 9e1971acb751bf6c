from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import rlawrap
from rlawrap.cli import main
from rlawrap.conversion import from_official, to_official
from rlawrap.errors import CheckpointError, ConfigError
from rlawrap.models import get_model


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training checkpoint as the official code writes it: module. before keys, and more."""
    model = get_model("dsrla_mobilenetv2_k6", num_classes=7)
    state = {f"module.{k}": v for k, v in rlawrap.official_state_dict(model).items()}
    path = tmp_path_factory.mktemp("official") / "model_best.pth.tar"
    torch.save({"epoch": 3, "state_dict": state, "best_acc1": torch.tensor(1.0)}, path)
    return path


def test_there_and_back_by_the_command_line(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.pth.tar"
    assert run("convert", str(official), str(ours), "--arch", "dsrla_mobilenetv2_k6") == 0
    assert capsys.readouterr().out.strip() == str(ours)
    assert rlawrap.load(ours).classifier[1].out_features == 7
    assert run("convert", str(ours), str(back)) == 0
    before = torch.load(official, weights_only=True)["state_dict"]
    after = torch.load(back, weights_only=True)["state_dict"]
    assert [f"module.{key}" for key in after] == list(before)
    assert all(torch.equal(before[f"module.{key}"], value) for key, value in after.items())


def test_another_network_writes_nothing(official: Path, tmp_path: Path) -> None:
    target = tmp_path / "ours.safetensors"
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        from_official(official, target, "rla_resnet50")
    assert len(str(caught.value).splitlines()) == 6
    assert re.search(r"more. Is it of --arch rla_resnet50\?.* rlav6_resnet50", str(caught.value))
    with pytest.raises(CheckpointError, match="does not fit"):
        from_official(official, target, "dsrla_mobilenetv2_k6", num_classes=8)
    with pytest.raises(CheckpointError, match="does not fit"):
        from_official(official, target, "dsrla_mobilenetv2_k6", k=8)
    assert list(tmp_path.iterdir()) == []


def test_bad_files(official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out"
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(official.read_bytes()[:5000])
    evil = tmp_path / "evil.pth"
    torch.save({"state_dict": {"fc.weight": Path("code")}}, evil)
    plain = tmp_path / "plain.safetensors"
    rlawrap.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)), plain)
    for arguments, message in (
        ([str(damaged), str(target), "--arch", "rla_resnet50"], "cannot be read"),
        ([str(evil), str(target), "--arch", "rla_resnet50"], "might run code"),
        ([str(tmp_path / "none.pth"), str(target), "--arch", "rla_resnet50"], "no such file"),
        ([str(official), str(target)], "Give --arch"),
        ([str(official), str(target), "--arch", "rla_resnet_50"], "no such model"),
        ([str(plain), str(target)], "pass `base=model`"),
        ([str(plain), str(target), "--arch", "rla_resnet50"], "knows its network"),
    ):
        assert run("convert", *arguments) == 2
        assert message in capsys.readouterr().err
        assert not target.exists()


def test_a_file_is_not_written_over_itself(official: Path) -> None:
    with pytest.raises(ConfigError, match="over itself"):
        to_official(official, official)
