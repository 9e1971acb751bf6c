from __future__ import annotations

import pytest
from scipy import stats

from rlawrap.errors import ConfigError
from rlawrap.train.ablation.paired import Paired, compare, draw_pairs, paired_table

FIGURES = {
    "plain": {0: 91.0, 1: 92.0, 2: 90.5, 3: 91.5, 4: 91.2},
    "k=4": {0: 91.6, 1: 92.4, 2: 91.3, 3: 92.2, 4: 91.7},
    "k=12": {4: 92.0, 7: 99.0},
}


def test_interval_is_student_t_over_the_seeds_of_both() -> None:
    small, large = compare(FIGURES, "plain")
    assert small.seeds == (0, 1, 2, 3, 4)
    differences = [0.6, 0.4, 0.8, 0.7, 0.5]
    assert small.differences == pytest.approx(differences)
    # By hand: deviation sqrt(0.025), over sqrt(5), times the quantile of t with 4 degrees.
    half = (0.025 / 5) ** 0.5 * 2.7764451
    assert (small.low, small.high) == pytest.approx((0.6 - half, 0.6 + half))
    assert small.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert small.separates
    assert (large.seeds, large.low, large.p, large.separates) == ((4,), None, None, False)
    assert large.mean == pytest.approx(0.8)


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    (at95,) = compare({name: FIGURES[name] for name in ("plain", "k=4")}, "plain")
    (at999,) = compare(
        {name: FIGURES[name] for name in ("plain", "k=4")}, "plain", confidence=0.999
    )
    assert at999.low < at95.low < at95.high < at999.high  # type: ignore[operator]
    assert not at999.separates


def test_equal_differences_have_no_interval() -> None:
    (pair,) = compare({"a": {0: 1.0, 1: 2.0}, "b": {0: 2.0, 1: 3.0}}, "a")
    assert (pair.mean, pair.low, pair.p) == (1.0, None, None)


@pytest.mark.parametrize(
    ("against", "confidence", "message"),
    [("k=5", 0.95, "'k=5' is none of plain, k=4, k=12"), ("plain", 95, "confidence=95")],
)
def test_bad_questions(against: str, confidence: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(FIGURES, against, confidence=confidence)


def test_table_and_picture_show_each_comparison() -> None:
    pairs = compare(FIGURES, "plain")
    lines = paired_table(pairs).splitlines()
    assert lines[2] == (
        "| k=4 | plain | 5 | +0.60 | +0.40 to +0.80 | 0.001 | +0.60, +0.40, +0.80, +0.70, +0.50 |"
    )
    assert paired_table([]) == ""
    axes = draw_pairs(pairs).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["k=4 - plain", "k=12 - plain"]
    crosses = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert [len(line.get_xdata()) for line in crosses] == [5, 1]  # type: ignore[arg-type]


def test_an_interval_that_ends_at_zero_does_not_separate() -> None:
    pair = Paired(
        name="a", against="b", confidence=0.95, seeds=(0, 1), differences=(0.0, 1.0),
        mean=0.5, low=0.0, high=1.0, p=0.05,
    )  # fmt: skip
    assert not pair.separates
