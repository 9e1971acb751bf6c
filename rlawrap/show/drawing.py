"""A picture as data: shapes, lines, texts and images at coordinates, and where its texts lie.

Coordinates are pixels, y runs down. Colours are names of a theme (`rlawrap.show.themes`) or
"#rrggbb". All text is set in a monospaced font, so that its width is known without drawing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Width of a character and height of a line, in sizes of the font (DejaVu Sans Mono's).
CHARACTER, LINE = 0.602, 1.17

Pixels: TypeAlias = NDArray[np.uint8]
Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle with rounded corners; `full` is what the SVG tells on pointing at it."""

    x: float
    y: float
    width: float
    height: float
    fill: str = "paper"
    line: str | None = None
    radius: float = 4
    full: str = ""


@dataclass(frozen=True, kw_only=True)
class Route:
    """A line through points, with an arrow at its end if asked."""

    points: tuple[Point, ...]
    line: str = "ink"
    width: float = 1.4
    arrow: bool = False
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A filled circle."""

    x: float
    y: float
    radius: float
    fill: str
    line: str | None = None


@dataclass(frozen=True, kw_only=True)
class Text:
    """One line of text; `x` is its start, middle or end, `y` its baseline."""

    x: float
    y: float
    text: str
    size: float = 11
    fill: str = "ink"
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the line.

        >>> Text(x=0, y=10, text="abcd", size=10).bounds
        (0.0, 1.0, 24.08, 12.7)
        """
        width = len(self.text) * CHARACTER * self.size
        left = self.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor] * width
        top = self.y - 0.9 * self.size
        return left, top, left + width, round(top + LINE * self.size, 6)


@dataclass(frozen=True, kw_only=True)
class Image:
    """An RGB image, uint8 [height, width, 3], stretched to a rectangle."""

    x: float
    y: float
    width: float
    height: float
    pixels: Pixels
    smooth: bool = False


Part: TypeAlias = Box | Route | Dot | Text | Image


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is to be drawn, in that order, on a sheet of a size."""

    width: float
    height: float
    parts: tuple[Part, ...]
    title: str = ""

    @property
    def texts(self) -> list[Text]:
        """All texts, in the order they are drawn."""
        return [part for part in self.parts if isinstance(part, Text)]


def overlapping(drawing: Drawing) -> list[tuple[str, str]]:
    """The texts that lie over each other or reach beyond the sheet; none in a good drawing.

    >>> a, b = Text(x=0, y=20, text="long name"), Text(x=30, y=22, text="other")
    >>> overlapping(Drawing(width=200, height=40, parts=(a, b)))
    [('long name', 'other')]
    """
    placed = [(text.text, text.bounds) for text in drawing.texts if text.text]
    outside = [
        (text, "the edge")
        for text, (left, top, right, bottom) in placed
        if left < 0 or top < 0 or right > drawing.width or bottom > drawing.height
    ]
    pairs = combinations(placed, 2)
    return outside + [(one, other) for (one, a), (other, b) in pairs if _meet(a, b)]


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def shortened(text: str, width: float, size: float = 11) -> str:
    """A text that fits a width, its middle left out where it is too long.

    >>> shortened("features.denseblock4.denselayer16", 120)
    'features…selayer16'
    >>> shortened("layer1.0", 120)
    'layer1.0'
    """
    most = max(1, int(width / (CHARACTER * size)))
    if len(text) <= most:
        return text
    front = (most - 1) // 2
    back = most - 1 - front
    return text[:front] + "…" + (text[-back:] if back else "")


def wrapped(text: str, width: float, size: float) -> list[str]:
    """A text in lines of a width, broken at blanks; a longer word is shortened."""
    lines, most = [""], max(1, int(width / (CHARACTER * size)))
    for word in text.split():
        word = shortened(word, width, size)
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) <= most:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def moved(parts: Iterable[Part], x: float, y: float) -> list[Part]:
    """Parts elsewhere on the sheet."""
    made: list[Part] = []
    for part in parts:
        if isinstance(part, Route):
            made.append(replace(part, points=tuple((a + x, b + y) for a, b in part.points)))
        else:
            made.append(replace(part, x=part.x + x, y=part.y + y))
    return made


def stacked(drawings: Iterable[Drawing], title: str = "") -> Drawing:
    """Drawings one below the other, on one sheet."""
    parts: list[Part] = []
    width = height = 0.0
    for drawing in drawings:
        parts += moved(drawing.parts, 0, height)
        width, height = max(width, drawing.width), height + drawing.height
    return Drawing(width=width, height=height, parts=tuple(parts), title=title)
