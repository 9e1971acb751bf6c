from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from rlawrap.show.drawing import (
    Box,
    Dot,
    Drawing,
    Image,
    Route,
    Text,
    overlapping,
    shortened,
    stacked,
    wrapped,
)
from rlawrap.show.raster import to_png
from rlawrap.show.svg import arrow_head, to_svg
from rlawrap.show.themes import DARK, LIGHT, heat

PIXELS = np.zeros((2, 3, 3), dtype=np.uint8)
SHEET = Drawing(
    width=120,
    height=60,
    title="a <sheet>",
    parts=(
        Box(x=5, y=5, width=50, height=30, fill="card", line="edge", full="full & name"),
        Route(points=((10, 50), (60, 50)), line="h", arrow=True, dashed=True),
        Dot(x=80, y=20, radius=4, fill="h", line="ink"),
        Text(x=8, y=20, text="<b>", bold=True),
        Image(x=90, y=10, width=20, height=20, pixels=PIXELS),
    ),
)


def test_svg_is_xml_with_its_texts_as_text() -> None:
    root = ET.fromstring(to_svg(SHEET))
    space = "{http://www.w3.org/2000/svg}"
    assert [t.text for t in root.iter(f"{space}text")] == ["<b>"]
    assert [t.text for t in root.iter(f"{space}title")] == ["a <sheet>", "full & name"]
    assert len(list(root.iter(f"{space}image"))) == 1


def test_a_control_character_does_not_break_the_svg() -> None:
    sheet = Drawing(width=50, height=20, parts=(Text(x=1, y=15, text="a\x01b"),))
    ET.fromstring(to_svg(sheet))


def test_themes_name_the_same_colours_and_paint_their_background() -> None:
    assert set(LIGHT) == set(DARK)
    for dark, theme in ((False, LIGHT), (True, DARK)):
        svg = to_svg(SHEET, dark=dark)
        assert f'<rect width="120" height="60" fill="{theme["paper"]}"/>' in svg
        assert theme["h"] in svg


@pytest.mark.parametrize("name", ["ink", "muted", "x", "h"])
def test_texts_and_lines_stand_out_from_what_they_lie_on(name: str) -> None:
    """WCAG's contrast: 4.5 for texts on the paper, a panel or a card."""
    for theme in (LIGHT, DARK):
        for ground in ("paper", "panel", "card"):
            light, dark = sorted((_luminance(theme[name]), _luminance(theme[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_png_has_the_size_and_the_colours_of_the_drawing() -> None:
    import io

    from PIL import Image as Pillow

    image = Pillow.open(io.BytesIO(to_png(SHEET, dark=True, scale=2))).convert("RGB")
    assert image.size == (240, 120)
    assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((2, 118))) == DARK["paper"]
    assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((160, 40))) == DARK["h"]
    assert image.getpixel((200, 40)) == (0, 0, 0)


def test_texts_that_overlap_or_leave_the_sheet_are_found() -> None:
    a, b = Text(x=5, y=20, text="aaaa"), Text(x=5, y=40, text="bbbb")
    out = Text(x=95, y=20, text="cccc")
    assert overlapping(Drawing(width=100, height=50, parts=(a, b))) == []
    assert overlapping(Drawing(width=100, height=50, parts=(out,))) == [("cccc", "the edge")]
    near = Text(x=20, y=22, text="dddd")
    assert overlapping(Drawing(width=100, height=50, parts=(a, near))) == [("aaaa", "dddd")]


def test_a_width_holds_what_was_shortened_or_wrapped_to_it() -> None:
    for width in (20, 55, 130):
        text = Text(x=0, y=20, text=shortened("features.denseblock4.denselayer16", width))
        assert text.bounds[2] <= width
    lines = wrapped("some words and averyveryverylongwordwithoutend", 80, 10)
    assert len(lines) > 1
    assert all(Text(x=0, y=0, text=line, size=10).bounds[2] <= 80 for line in lines)


def test_a_stack_moves_every_part_down() -> None:
    both = stacked([SHEET, SHEET])
    assert (both.width, both.height) == (120, 120)
    assert [t.y for t in both.texts] == [20, 80]
    assert [p.points for p in both.parts if isinstance(p, Route)][1] == ((10, 110), (60, 110))


def test_an_arrow_ends_at_the_last_point() -> None:
    tip, left, right = arrow_head(Route(points=((0, 0), (10, 0)), arrow=True))
    assert tip == (10, 0)
    assert {left, right} == {(4, -3), (4, 3)}


def test_heat_runs_from_dark_to_light() -> None:
    colours = heat(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist()
    assert colours[0] == colours[1] == [0, 0, 4]
    assert colours[2] == [188, 55, 84]
    assert colours[3] == colours[4] == [252, 255, 164]
