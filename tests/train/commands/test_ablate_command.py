from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from rlawrap.cli import main
from rlawrap.errors import ConfigError
from rlawrap.train.commands.ablate_command import parse_grid, repeat_options

TINY = [
    "--arch", "cifar_resnet20", "--subset", "64", "--image-size", "16", "--epochs", "1",
    "--workers", "0", "--model-arg", "in_channels=1",
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("--k 0 4 --cell conv", "--k 0 --k 4 --cell conv"),
        ("--k 0 --k 4", "--k 0 --k 4"),
        ("data --k 0 4 8 --lr 0.1", "data --k 0 --k 4 --k 8 --lr 0.1"),
        ("--lr 0.1 data", "--lr 0.1 data"),
        ("--k=4 data", "--k=4 data"),
    ],
)
def test_lists_after_an_option(given: str, read: str) -> None:
    assert repeat_options(given.split()) == read.split()


def test_dry_run_prints_commands_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["--k", "0", "4", "8", "--cell", "conv", "convgru", "--source", "output", "branch"]
    options = ["--seeds", "2", "--output", str(tmp_path / "out"), "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        main(["ablate", "builtin", *grid, *TINY, *options])
    assert ended.value.code == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 2 * (1 + 2 * 2 * 2)
    assert all(shlex.split(command)[:2] == ["rlawrap", "train"] for command in commands)
    assert list(tmp_path.iterdir()) == []


def test_a_printed_command_can_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["--k", "0", "--seeds", "1", "--output", str(tmp_path)]
    for arguments in (["ablate", *grid, *TINY, "--dry-run"], None, ["ablate", *grid, *TINY]):
        if arguments is None:
            arguments = shlex.split(capsys.readouterr().out)[1:]
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "1 runs, 1 finished already" in out
    assert "| 0 | - | - | 1 | 269,434 | 10,064,512 |" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "0", "0"], "twice"),
        (["--k", "4", "--cell", "nonsense"], "nonsense"),
        (["--k", "4", "--source", "nonsense"], "nonsense"),
        (["--k", "4", "--lr", "-1"], "lr"),
    ],
)
def test_bad_input_is_one_message_and_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ablate", *arguments, *TINY, "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_field_of_the_grid_without_values_is_told() -> None:
    with pytest.raises(ConfigError, match="--grid 'share': write NAME=VALUE,VALUE"):
        parse_grid(["share"])
