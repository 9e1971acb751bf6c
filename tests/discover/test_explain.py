"""`explain=True` prints each candidate with its evidence, its verdict and the reason."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import rlawrap
from rlawrap.cli import main
from tests.nets import Residual, Small

IMAGE = torch.zeros(2, 3, 16, 16)


def rows(text: str) -> dict[str, list[str]]:
    """Candidate -> kind, class, evidence and verdict."""
    lines = [re.split(r" {2,}", line) for line in text.splitlines()[3:]]
    return {name: rest for name, *rest in lines}


def test_candidates_are_printed_and_the_plan_is_returned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    net = Small(Residual(8, 8), Residual(8, 16, 2), Residual(16, 16), last=16)
    plan = rlawrap.inspect(net, example_input=IMAGE, explain=True)
    printed = capsys.readouterr().out
    assert plan == rlawrap.inspect(net, example_input=IMAGE)
    assert capsys.readouterr().out == ""
    assert printed.splitlines()[0] == "Small: 3 of 5 candidates are blocks"
    assert rows(printed) == {
        "body": [
            "module", "Sequential", "7 convolutions, spatial kernel, container, 2 of its class",
            "no block: holds blocks and joins nothing",
        ],
        "body.0": [
            "owner of joins", "Residual", "1 add, 2 convolutions, spatial kernel, 3 of its class",
            "block: its forward joins branches",
        ],
        "body.1": [
            "owner of joins", "Residual", "1 add, 3 convolutions, spatial kernel, 3 of its class",
            "block: its forward joins branches",
        ],
        "body.1.project": [
            "module", "Sequential",
            "1 convolution, container, in 1 that joins, 2 of its class",
            "part: lies in body.1",
        ],
        "body.2": [
            "owner of joins", "Residual", "1 add, 2 convolutions, spatial kernel, 3 of its class",
            "block: its forward joins branches",
        ],
    }  # fmt: skip


def test_a_refusal_is_explained_before_it_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2))
    with pytest.raises(rlawrap.PlanError, match="no blocks found"):
        rlawrap.inspect(net, example_input=IMAGE, explain=True)
    assert "0 of 0 candidates are blocks" in capsys.readouterr().out


def test_chosen_blocks_are_explained_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    net = Small(Residual(8, 8), Residual(8, 8))
    rlawrap.inspect(net, example_input=IMAGE, blocks="body.1", explain=True)
    said = {name: row[-1] for name, row in rows(capsys.readouterr().out).items()}
    assert said == {"body": "-", "body.0": "-", "body.1": "block: named by blocks="}


def test_the_command_explains_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "torchvision:squeezenet1_1", "--explain"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert printed.startswith("SqueezeNet: 8 of ")
    assert "8 blocks in" in printed
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "torchvision:squeezenet1_1", "--explain", "--json"])
    assert stop.value.code == 2
    assert "--explain prints a table; leave out --json" in capsys.readouterr().err
