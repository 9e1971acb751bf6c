from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlawrap.cli import app
from rlawrap.errors import ConfigError
from rlawrap.train.commands.lr_find_command import draw_range, verdict
from rlawrap.train.loop.lr_range import Point, lr_range, suggest
from tests.train.toys import ToyImages, toy_config, toy_models

DATA = (ToyImages(40), ToyImages(10))


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    with toy_models():
        yield


def test_rates_grow_until_the_loss_is_beyond_measure(tmp_path: Path) -> None:
    config = toy_config(tmp_path / "run", accumulate=2)
    points = lr_range(config, start=1e-3, end=1e4, steps=36, data=DATA)
    factor = 1e7 ** (1 / 35)
    assert [p.lr for p in points[:3]] == pytest.approx([1e-3, 1e-3 * factor, 1e-3 * factor**2])
    assert 10 < len(points) < 36  # many more than an epoch has steps, and it ended early
    least = min(p.smoothed for p in points)
    assert all(p.smoothed <= 4 * least for p in points[:-1])
    assert points[-1].smoothed > 4 * least or len(points) < 36
    best = suggest(points)
    assert best is not None and 1e-3 < best < points[-1].lr
    assert not (tmp_path / "run").exists()
    again = lr_range(config, start=1e-3, end=1e4, steps=36, data=DATA)
    assert again == points
    axes = draw_range(points, best).axes[0]
    assert axes.get_lines()[1].get_xdata().tolist() == [p.lr for p in points]
    assert verdict(points, best).startswith(f"--lr {best:.2g}: ")


def test_no_suggestion_where_the_loss_does_not_fall() -> None:
    points = [Point(lr=10.0**n, loss=1.0 + n, smoothed=1.0 + n) for n in range(5)]
    assert suggest(points) is None and suggest([]) is None
    assert "did not fall" in verdict(points, None)


def test_a_range_that_is_none(tmp_path: Path) -> None:
    for start, end, steps in ((1.0, 0.1, 10), (0.0, 1.0, 10), (0.1, 1.0, 1)):
        with pytest.raises(ConfigError, match="give a range"):
            lr_range(toy_config(tmp_path), start=start, end=end, steps=steps, data=DATA)


def test_the_files_lie_in_a_folder_that_output_names_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("--arch", "cifar_resnet20", "--image-size", "8", "--workers", "0", "--subset", "20")
    given = (*given, "--batch-size", "10", "--steps", "2", "--progress", "none")
    done = CliRunner().invoke(app, ["lr-find", "--output", ".", *given], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.glob("lr-find.*")) == [
        "lr-find.json", "lr-find.png", "lr-find.svg",
    ]  # fmt: skip
