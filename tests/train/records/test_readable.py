"""Names of any script, spikes, and a single epoch in plots."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib import font_manager

from rlawrap.train.records import readable
from rlawrap.train.records.plot import draw_runs, plot_runs, plotting
from rlawrap.train.records.readable import drawable, spike_limit
from rlawrap.train.records.runs import read_run
from tests.train.made_up_runs import write_run


def change(path: Path, edit: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Path:
    """Edit the lines of a run's metrics."""
    file = path / "metrics.jsonl"
    lines = edit([json.loads(line) for line in file.read_text().splitlines()])
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_run_of_one_epoch_shows_a_point_in_every_panel(tmp_path: Path) -> None:
    run = change(write_run(tmp_path / "run", [50]), lambda lines: lines[1:])
    for axes in draw_runs([read_run(run)]).axes:
        (*_, line) = axes.get_lines()
        assert (list(line.get_xdata()), line.get_marker()) == ([1], "o")
        assert axes.get_xlim() == (0, 1.05)


def test_a_panel_without_figures_says_why(tmp_path: Path) -> None:
    run = change(write_run(tmp_path / "run", [50]), lambda lines: lines[:1])
    texts = [[text.get_text() for text in axes.texts] for axes in draw_runs([read_run(run)]).axes]
    assert texts == [[], [], ["not judged yet"], []]


def test_a_spike_is_cut_and_told(tmp_path: Path) -> None:
    def spike(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        lines[6]["loss"], lines[7]["loss"] = 912.3, None
        return lines

    spiked = change(write_run(tmp_path / "a", [50, 60, 65, 70, 72]), spike)
    usual = write_run(tmp_path / "b", [50, 60])
    loss = draw_runs([read_run(spiked), read_run(usual)]).axes[0]
    low, high = loss.get_ylim()
    assert 0 < low < 1.56 and 2.0 <= high < 3.0
    assert loss.get_title() == "cross entropy; axis cut, highest: 912.3"
    mark = loss.get_lines()[-1]
    assert (mark.get_marker(), list(mark.get_xdata()), list(mark.get_ydata())) == (
        "^",
        [2.5],
        [high],
    )
    assert draw_runs([read_run(usual)]).axes[0].get_title() == "cross entropy"


@pytest.mark.parametrize(
    ("curve", "cut"),
    [
        ([2.3 * 0.9**n for n in range(100)], False),  # a usual one, high where it begins
        ([7.0, 3.0, 2.0, 1.5, 1.2], False),
        ([2.0, 4.0, 8.0, 16.0, 32.0], False),  # it diverges, and is to be seen
        ([1.0, 1.0, 1.0, 1e30], True),
        ([50.0, *[2.0 - n / 50 for n in range(40)], 80.0], True),
        ([2.0, 900.0], False),  # which of the two is usual?
        ([0.0, 0.0, 0.0], False),
        ([], False),
    ],
)
def test_what_is_a_spike(curve: list[float], cut: bool) -> None:
    assert (spike_limit([curve]) is not None) == cut
    assert spike_limit([curve, [1e31, 1e31, 1e31]]) is None  # another curve needs the room


def letter_beyond_the_usual_font() -> str:
    usual = readable._letters_of(font_manager.findfont("DejaVu Sans"))
    return min(readable._letters_of(font_manager.findfont("STIXGeneral")) - usual)


def test_letters_come_from_an_installed_font_or_are_escaped() -> None:
    letter = letter_beyond_the_usual_font()
    shown, families = drawable(f"a{letter}\u3ab6\n")
    # No font that comes with matplotlib has the second; where another has, it is drawn.
    assert shown in (f"a{letter}\\u3ab6\\n", f"a{letter}\u3ab6\\n")
    assert len(families) > 1
    usual = drawable("résumé_é")
    assert usual == ("résumé_é", families[:1])


def test_runs_of_any_name_are_drawn_without_warnings(tmp_path: Path) -> None:
    names = [
        "猫",
        "_hidden",
        "cost $1_$",
        f"{letter_beyond_the_usual_font()}",
        "a\nb",
        "$",
        "\udcff",
    ]
    record = read_run(write_run(tmp_path / "run", [50, 60]))
    with plotting():
        figure = draw_runs([record] * len(names), names)
        figure.savefig(tmp_path / "all.png")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [drawable(name)[0] for name in names]
    assert texts[1:3] == ["_hidden", "cost $1_$"]
    assert plot_runs([write_run(tmp_path / "犬", [50])], formats=["svg"])
