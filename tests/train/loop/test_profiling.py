from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlawrap.train import train
from tests.train.toys import ToyImages, assert_same_run, toy_config, toy_models


def test_a_profile_is_written_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (ToyImages(60), ToyImages(10))
    with toy_models():
        for name in ("plain", "traced", "short"):
            config = toy_config(tmp_path / name, profile=name != "plain", progress="plain")
            train(config.replace(epochs=1 if name == "short" else 2), data=data if name != "short"
                  else (ToyImages(20), data[1]))  # fmt: skip
    assert_same_run(tmp_path / "plain", tmp_path / "traced")
    events = json.loads((tmp_path / "traced" / "profile" / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "aten::cross_entropy_loss" for event in events) >= 5
    assert "aten::" in (tmp_path / "traced" / "profile" / "operations.txt").read_text()
    assert "no profile: it takes more than 5 steps" in capsys.readouterr().out
    assert not (tmp_path / "short" / "profile").exists()
