"""What makes a plot readable: names in letters of any script, axes that no spike stretches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

#: A spike is so many times as far above the usual values of its curve as these are spread ...
FAR = 8.0
#: ... and so many times as large as they are.
LARGE = 4.0
#: The share of a curve's values that is taken for the usual ones; its largest never is.
USUAL = 0.8


def name_entries(legend: Legend, names: Sequence[str]) -> None:
    """Set the texts of a legend to any names.

    Installed fonts are found for letters that the usual one lacks; a letter that none has is
    escaped. No name is taken for a formula, nor left out for its first letter.
    """
    for text, name in zip(legend.get_texts(), names, strict=True):
        shown, families = drawable(name)
        text.set_parse_math(False)
        text.set_text(shown)
        text.set_fontfamily(families)


def drawable(name: str) -> tuple[str, list[str]]:
    r"""A name as it can be drawn, and the font families for it, the usual ones first.

    >>> drawable("a\tb\udcff")[0]
    'a\\tb\\udcff'
    """
    import matplotlib

    usual = list(matplotlib.rcParams["font.family"])
    lacking = {letter for letter in name if not " " <= letter <= "~"}
    if not lacking:
        return name, usual
    lacking -= _letters_of(_file_of(usual))
    families = _families_for(frozenset(letter for letter in lacking if letter.isprintable()))
    for family in families:
        lacking -= _letters_of(_file_of([family]))
    escaped = (c.encode("unicode_escape").decode() if c in lacking else c for c in name)
    return "".join(escaped), [*usual, *families]


@cache
def _families_for(letters: frozenset[str]) -> tuple[str, ...]:
    """Installed families that together have as many of the letters as can be had."""
    from matplotlib import font_manager

    left, families = set(letters), []
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: entry.name):
        # "Last Resort" has a box for every letter there is.
        if not left or entry.name in families or entry.name.startswith("Last Resort"):
            continue
        # Of a family matplotlib takes one file for a text.
        if left & _letters_of(entry.fname) and (has := left & _letters_of(_file_of([entry.name]))):
            families.append(entry.name)
            left -= has
    return tuple(families)


def _file_of(families: list[str]) -> str:
    from matplotlib import font_manager

    return font_manager.findfont(font_manager.FontProperties(family=families))


@cache
def _letters_of(file: str) -> frozenset[str]:
    from matplotlib import font_manager

    try:
        return frozenset(map(chr, font_manager.get_font(file).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # a font that is damaged or gone
        return frozenset()


def cut_spikes(axes: Axes) -> None:
    """Cut the axis above the curves on it where spikes would flatten them, and say so.

    What is above it is marked at the edge, and the title tells the highest value.
    """
    curves = [(line, _points(line)) for line in axes.get_lines()]
    values = [[y for _, y in points] for _, points in curves]
    top = spike_limit(values)
    if top is None:
        return
    bottom = min(min(own) for own in values if own)
    axes.set_ylim(bottom - 0.05 * (top - bottom), top)
    for line, points in curves:
        if above := [x for x, y in points if y > top]:
            at = [top] * len(above)
            axes.plot(above, at, "^", color=line.get_color(), markersize=5, clip_on=False)
    peak = max(max(own) for own in values if own)
    axes.set_title(f"{axes.get_title()}; axis cut, highest: {peak:.4g}", fontsize=10)


def _points(line: Line2D) -> list[tuple[float, float]]:
    """The finite points of a curve."""
    points: Any = line.get_xydata()
    return [(float(x), float(y)) for x, y in points if math.isfinite(y)]


def spike_limit(curves: Iterable[Sequence[float]]) -> float | None:
    """Where to cut the axis, above all usual values, when spikes would flatten a curve; or None.

    Each curve is judged by itself: one that is high as a whole is shown as a whole.

    >>> spike_limit([[2.0, 1.5, 900.0, 1.0, 1.0], [1.0, 2.0]])
    3.0
    >>> spike_limit([[2.5, 2.0, 1.5, 1.0, 0.5]]) is None
    True
    """
    tops, peak = [], -math.inf
    for curve in curves:
        if not curve:
            continue
        low, *_, high = values = sorted(curve) if len(curve) > 1 else [*curve, *curve]
        usual = values[min(len(values) - 2, math.ceil(USUAL * len(values)) - 1)]
        spread = max(usual - low, 0.1 * abs(usual))
        spiked = len(curve) > 2 and high > usual + FAR * spread and high > LARGE * abs(usual)
        tops.append(usual + spread if spiked else high)
        peak = max(peak, high)
    top = max(tops, default=peak)
    return top if peak > top else None
