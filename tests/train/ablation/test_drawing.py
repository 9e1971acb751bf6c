from __future__ import annotations

import pytest

from rlawrap.train.ablation.drawing import draw_curves, draw_outcomes
from rlawrap.train.ablation.grid import GridRun
from tests.train.ablation.collected import outcomes, records


@pytest.mark.parametrize(("against", "xs"), [("k", [0, 4, 8]), ("macs", [10, 14, 18])])
def test_plots_show_means_over_the_axis(grid: list[GridRun], against: str, xs: list[float]) -> None:
    axes = draw_outcomes(outcomes(grid), against=against).axes[0]
    (means,) = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert list(means.get_xdata()) == xs
    assert list(means.get_ydata()) == [71, 73, 74]
    assert axes.get_legend().get_texts()[0].get_text() == "conv, source output"
    if against == "k":
        assert axes.get_xticks().tolist() == xs


def test_plain_alone_can_be_drawn(grid: list[GridRun]) -> None:
    for against, x in (("k", 0), ("macs", 10)):
        (line,) = draw_outcomes(outcomes(grid)[:1], against=against).axes[0].get_lines()
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([x, x], [70, 72])


def test_curves_have_a_line_per_seed_and_their_mean(grid: list[GridRun]) -> None:
    axes = draw_curves(records(grid)).axes[0]
    means = [list(line.get_ydata()) for line in axes.get_lines() if line.get_marker() == "o"]
    assert means == [[67.5, 71], [70.5, 73], [60, 74]]
    assert len(axes.get_lines()) == 5 + 3
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["plain", "conv-output-k4", "conv-output-k8"]
