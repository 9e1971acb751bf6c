from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from rlawrap.cli import main
from rlawrap.train.commands.demo_command import demo_configs
from rlawrap.train.records.runs import read_run


def test_only_the_network_differs() -> None:
    plain, rla = demo_configs(Path("x"), epochs=3)
    assert set(plain.differences(rla)) == {"arch"}


def test_demo_from_nothing_to_a_network_in_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--output", str(tmp_path / "demo"), "--epochs", "1", "--subset", "64"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "layer3.2" in out  # the plan
    for name, params in (("cifar_resnet20", "269,434"), ("rla_cifar_resnet20", "296,490")):
        record = read_run(tmp_path / "demo" / name)
        assert record.finished and record.folder.best_checkpoint.is_file()
        (row,) = re.findall(rf"^{name} .*$", out, re.MULTILINE)
        last = record.evaluations[-1]
        assert row.split()[1] == params
        assert row.split()[3] == f"{last['top1']:.2f}" and row.split()[5] == f"{last['top5']:.2f}"
    assert (tmp_path / "demo" / "curves.png").read_bytes().startswith(b"\x89PNG")

    (line,) = re.findall(r"from rlawrap\S* import .*", out)
    names: dict[str, torch.nn.Module] = {}
    exec(line, names)
    assert names["model"](torch.zeros(2, 1, 32, 32)).shape == (2, 10)

    before = (tmp_path / "demo" / "rla_cifar_resnet20" / "best.pt").stat().st_mtime_ns
    with pytest.raises(SystemExit):
        main(arguments)  # nothing is trained again
    assert (tmp_path / "demo" / "rla_cifar_resnet20" / "best.pt").stat().st_mtime_ns == before
