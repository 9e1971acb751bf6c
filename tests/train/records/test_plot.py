from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rlawrap.errors import ConfigError, RLAError, TrainError
from rlawrap.train.commands.records_commands import plot_command
from rlawrap.train.records.plot import distinct_names, draw_runs, plot_runs
from rlawrap.train.records.runs import read_run
from tests.train.made_up_runs import write_run


def test_panels_show_the_figures_of_the_log(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path / "run", [50, 70, 60]))
    loss, top1, top5, rate = draw_runs([record]).axes
    training, test = loss.get_lines()[:2]
    assert training.get_xdata().tolist() == [0.5, 1, 1.5, 2, 2.5, 3]
    assert test.get_xdata().tolist() == [1, 2, 3]
    assert test.get_ydata().tolist() == pytest.approx([2.0, 1.6, 1.8])
    assert top1.get_lines()[1].get_ydata().tolist() == [50, 70, 60]
    assert top5.get_lines()[0].get_ydata().tolist() == [60, 80, 70]
    assert rate.get_lines()[0].get_ydata()[-1] == pytest.approx(0.1 / 3)


def test_epochs_of_another_batch_stand_where_they_belong(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", [50, 70])
    file = path / "metrics.jsonl"
    *first, before, half, end, judged = file.read_text().splitlines()
    change = '{"kind": "change", "epoch": 1, "step": 0, "global_step": 40}'
    second = [
        json.dumps({**json.loads(line), "global_step": steps})
        for line, steps in ((half, 60), (end, 80), (judged, 80))  # 40 steps an epoch from now on
    ]
    file.write_text("\n".join([*first, before, change, *second, ""]))
    training, test = draw_runs([read_run(path)]).axes[0].get_lines()[:2]
    assert training.get_xdata().tolist() == [0.5, 1, 1.5, 2]
    assert test.get_xdata().tolist() == [1, 2]


def test_several_runs_in_colours_of_their_own(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / name, [50, 60]) for name in ("plain", "rla")]
    figure = draw_runs([read_run(path) for path in paths])
    lines = figure.axes[2].get_lines()
    assert len({line.get_color() for line in lines}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "rla"]


def test_averaged_weights_have_a_line_of_their_own(tmp_path: Path) -> None:
    figure = draw_runs([read_run(write_run(tmp_path / "run", [50, 70], ema=True))])
    assert [line.get_ydata().tolist() for line in figure.axes[2].get_lines()] == [
        [60, 80],
        [61, 81],
    ]


def test_before_the_first_evaluation_the_axis_counts_steps(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", [50])
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(lines[:2]))
    loss = draw_runs([read_run(path)]).axes[0]
    assert loss.get_xlabel() == "step"
    assert loss.get_lines()[0].get_xdata().tolist() == [5, 10]


def test_files_of_one_run_and_of_several(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path / "runs" / name, [50, 60]) for name in "ab")
    assert plot_runs([one]) == [one.resolve() / "curves.png", one.resolve() / "curves.svg"]
    png, svg = plot_runs([one, two])
    assert png == (tmp_path / "runs" / "curves.png").resolve()
    assert png.read_bytes().startswith(b"\x89PNG") and b"<svg" in svg.read_bytes()
    assert not list(tmp_path.rglob("*.new"))


def test_the_same_runs_give_the_same_svg(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [50, 60])
    first = plot_runs([run], tmp_path / "x", ["svg"])[0].read_bytes()
    assert plot_runs([run], tmp_path / "y", ["svg"])[0].read_bytes() == first


def test_command_prints_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", [50, 60])
    plot_command([run], tmp_path / "out" / "figure.v1", ["png"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "figure.v1.png")
    monkeypatch.chdir(tmp_path / "run")
    for output, place in ((".", "run/curves.png"), ("..", "curves.png")):
        plot_command([run], Path(output), ["png"])
        assert (tmp_path / place).is_file()


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainError, match="not a run folder"):
        plot_runs([tmp_path])
    with pytest.raises(TrainError, match="no metrics"):
        plot_runs([write_run(tmp_path / "new", [])])
    run = write_run(tmp_path / "run", [50])
    with pytest.raises(ConfigError, match="plot format 'xyz'"):
        plot_runs([run], formats=["png", "xyz"])
    assert not (run / "curves.png").exists()
    (tmp_path / "file").touch()
    with pytest.raises(RLAError, match="cannot be written"):
        plot_runs([run], tmp_path / "file" / "curves")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RLAError, match=r"pip install 'rlawrap\[train\]'"):
        plot_runs([run])


def test_names_that_tell_runs_apart() -> None:
    assert distinct_names([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert distinct_names([Path("x/k4/s0"), Path("x/k4/s1"), Path("y/k4/s1")]) == [
        "x/k4/s0",
        "x/k4/s1",
        "y/k4/s1",
    ]
    assert distinct_names([Path("a"), Path("a")]) == ["a", "a"]
