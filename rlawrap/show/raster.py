"""Drawing -> PNG, by matplotlib, whose own fonts make the same picture on every machine."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rlawrap.errors import RLAError
from rlawrap.show.drawing import Box, Dot, Drawing, Image, Part, Route, Text
from rlawrap.show.svg import arrow_head
from rlawrap.show.themes import colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Pixels of a drawing to an inch.
INCH = 100


def to_png(drawing: Drawing, *, dark: bool = False, scale: float = 1.5) -> bytes:
    """The PNG file of a drawing, `scale` pixels for each of its own.

    Raises `RLAError` without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RLAError(
            "a PNG is drawn by matplotlib, which is not installed: pip install 'rlawrap[show]'. "
            "An SVG needs nothing: end the file in .svg."
        ) from error
    paper = colour("paper", dark)
    figure = Figure(figsize=(drawing.width / INCH, drawing.height / INCH), facecolor=paper)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    axes.set_axis_off()
    for order, part in enumerate(drawing.parts):
        _add(axes, part, dark, order + 1)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=INCH * scale, facecolor=paper, metadata={"Software": ""})
    return file.getvalue()


def _add(axes: Axes, part: Part, dark: bool, order: int) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch, Polygon

    points = 72 / INCH  # a typographer's point is 1/72 inch
    if isinstance(part, Box):
        round_by = min(part.radius, part.width / 2, part.height / 2)
        axes.add_patch(
            FancyBboxPatch(
                (part.x, part.y),
                part.width,
                part.height,
                boxstyle=f"round,pad=0,rounding_size={round_by}" if round_by else "square,pad=0",
                facecolor=colour(part.fill, dark),
                edgecolor=colour(part.line, dark) if part.line else "none",
                linewidth=points if part.line else 0,
                zorder=order,
            )
        )
    elif isinstance(part, Route):
        paint = colour(part.line, dark)
        xs, ys = zip(*part.points, strict=True)
        style = (0, (4, 3)) if part.dashed else "-"
        axes.plot(xs, ys, color=paint, linewidth=part.width * points, linestyle=style, zorder=order)
        if part.arrow:
            axes.add_patch(Polygon(arrow_head(part), facecolor=paint, linewidth=0, zorder=order))
    elif isinstance(part, Dot):
        edge = colour(part.line, dark) if part.line else "none"
        axes.add_patch(
            Circle(
                (part.x, part.y),
                part.radius,
                facecolor=colour(part.fill, dark),
                edgecolor=edge,
                linewidth=1.4 * points if part.line else 0,
                zorder=order,
            )
        )
    elif isinstance(part, Text):
        axes.text(
            part.x,
            part.y,
            part.text,
            fontsize=part.size * points,
            color=colour(part.fill, dark),
            horizontalalignment={"start": "left", "middle": "center", "end": "right"}[part.anchor],
            verticalalignment="baseline",
            fontweight="bold" if part.bold else "normal",
            fontfamily="DejaVu Sans Mono",
            zorder=order,
            parse_math=False,
        )
    else:
        _add_image(axes, part, order)


def _add_image(axes: Axes, image: Image, order: int) -> None:
    axes.imshow(
        image.pixels,
        extent=(image.x, image.x + image.width, image.y + image.height, image.y),
        interpolation="bilinear" if image.smooth else "nearest",
        aspect="auto",
        zorder=order,
    )
