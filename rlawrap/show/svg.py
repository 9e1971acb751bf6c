"""Drawing -> SVG: text stays text, so that it can be searched and copied."""

from __future__ import annotations

import base64
import io
import math
from xml.sax.saxutils import escape, quoteattr

from rlawrap.show.drawing import Box, Dot, Drawing, Image, Part, Pixels, Point, Route, Text
from rlawrap.show.themes import colour

FONT = "DejaVu Sans Mono, Menlo, Consolas, Liberation Mono, monospace"


def to_svg(drawing: Drawing, *, dark: bool = False) -> str:
    """The SVG file of a drawing, with its background painted.

    >>> sheet = Drawing(width=80, height=20, parts=(Text(x=4, y=14, text="a < b"),))
    >>> "a &lt; b" in to_svg(sheet)
    True
    """
    size = f"{_n(drawing.width)} {_n(drawing.height)}"
    width, height = size.split()
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="0 0 {size}" font-family="{FONT}">',
        f"<title>{escape(drawing.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="{colour("paper", dark)}"/>',
        *(_part(part, dark) for part in drawing.parts),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _part(part: Part, dark: bool) -> str:
    if isinstance(part, Box):
        return _box(part, dark)
    if isinstance(part, Route):
        return _route(part, dark)
    if isinstance(part, Dot):
        stroke = f' stroke="{colour(part.line, dark)}" stroke-width="1.4"' if part.line else ""
        return (
            f'<circle cx="{_n(part.x)}" cy="{_n(part.y)}" r="{_n(part.radius)}" '
            f'fill="{colour(part.fill, dark)}"{stroke}/>'
        )
    if isinstance(part, Text):
        anchor = "" if part.anchor == "start" else f' text-anchor="{part.anchor}"'
        bold = ' font-weight="bold"' if part.bold else ""
        return (
            f'<text x="{_n(part.x)}" y="{_n(part.y)}" font-size="{_n(part.size)}" '
            f'fill="{colour(part.fill, dark)}"{anchor}{bold} xml:space="preserve">'
            f"{escape(_printable(part.text))}</text>"
        )
    return _image(part)


def _box(box: Box, dark: bool) -> str:
    stroke = f' stroke="{colour(box.line, dark)}"' if box.line else ""
    rect = (
        f'<rect x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" '
        f'height="{_n(box.height)}" rx="{_n(box.radius)}" fill="{colour(box.fill, dark)}"{stroke}'
    )
    told = f"<title>{escape(_printable(box.full))}</title>"
    return f"{rect}>{told}</rect>" if box.full else f"{rect}/>"


def _route(route: Route, dark: bool) -> str:
    points = " ".join(f"{_n(x)},{_n(y)}" for x, y in route.points)
    paint = colour(route.line, dark)
    dashes = ' stroke-dasharray="4 3"' if route.dashed else ""
    line = (
        f'<polyline points="{points}" fill="none" stroke="{paint}" '
        f'stroke-width="{_n(route.width)}"{dashes}/>'
    )
    if not route.arrow:
        return line
    tip = " ".join(f"{_n(x)},{_n(y)}" for x, y in arrow_head(route))
    return f'{line}<polygon points="{tip}" fill="{paint}"/>'


def arrow_head(route: Route, length: float = 6, half: float = 3) -> tuple[Point, Point, Point]:
    """The triangle at the end of a line: its tip first."""
    (x0, y0), (x1, y1) = route.points[-2:]
    far = math.hypot(x1 - x0, y1 - y0) or 1.0
    dx, dy = (x1 - x0) / far, (y1 - y0) / far
    back = (x1 - length * dx, y1 - length * dy)
    return (
        (x1, y1),
        (back[0] - half * dy, back[1] + half * dx),
        (back[0] + half * dy, back[1] - half * dx),
    )


def _image(image: Image) -> str:
    data = base64.b64encode(png_bytes(image.pixels)).decode()
    how = "auto" if image.smooth else "pixelated"
    return (
        f'<image x="{_n(image.x)}" y="{_n(image.y)}" width="{_n(image.width)}" '
        f'height="{_n(image.height)}" preserveAspectRatio="none" style="image-rendering:{how}" '
        f"xlink:href={quoteattr('data:image/png;base64,' + data)}/>"
    )


def png_bytes(pixels: Pixels) -> bytes:
    """RGB pixels as a PNG file."""
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def _n(value: float) -> str:
    return f"{round(value, 2):g}"


def _printable(text: str) -> str:
    """XML has no place for control characters, not even escaped."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
