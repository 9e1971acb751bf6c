"""Measurements -> drawings: bars of the gates, maps of h, and class-activation maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from rlawrap.show.cam import ClassMap, ClassMaps
from rlawrap.show.drawing import Box, Drawing, Image, Part, Pixels, Text, shortened, wrapped
from rlawrap.show.gates import Gate, Gates
from rlawrap.show.hidden import HiddenStates, State, component_colours, liveliest, stretched
from rlawrap.show.plan_map import tail_of
from rlawrap.show.themes import heat

MARGIN, TITLE, SMALL = 28, 14, 10


def _top(title: str, lines: Sequence[str], width: float) -> tuple[list[Part], float]:
    """A title and lines of explanation; the y below them."""
    room = width - 2 * MARGIN
    parts: list[Part] = [
        Text(x=MARGIN, y=28, text=shortened(title, room, TITLE), size=TITLE, bold=True)
    ]
    y = 32.0
    for line in (part for text in lines for part in wrapped(text, room, SMALL)):
        y += 14
        parts.append(Text(x=MARGIN, y=y, text=line, size=SMALL, fill="muted"))
    return parts, y + 12


def draw_gates(gates: Gates) -> Drawing:
    """Two bars for each layer that h enters: x's share and h's, as root mean squares."""
    width, bars, row = 860.0, 430.0, 24
    left = MARGIN + 230
    title = f"{gates.model}: what h adds at each layer that it enters"
    lines = [f"measured on {gates.source}", gates.verdict]
    parts, y = _top(title, lines, width)
    for x, fill, text in (
        (MARGIN, "x", "Conv_x(x)"), (MARGIN + 120, "h", "Conv_h(h)"),
    ):  # fmt: skip
        parts += [
            Box(x=x, y=y - 2, width=18, height=8, fill=fill, radius=1),
            Text(x=x + 24, y=y + 6, text=text, size=SMALL),
        ]
    parts += [
        Text(x=left, y=y + 6, text="root mean square", size=SMALL, fill="muted"),
        Text(x=width - MARGIN, y=y + 6, text="h / x", size=SMALL, fill="muted", anchor="end"),
    ]
    y += 18
    longest = max((max(g.x_rms, g.h_rms) for g in gates.gates), default=0.0) or 1.0
    for n, gate in enumerate(gates.gates):
        parts += _bars(gate, y + n * row, left, bars / longest, width, striped=n % 2 == 0)
    height = y + len(gates.gates) * row + 16
    return Drawing(width=width, height=height, parts=tuple(parts), title=title)


def _bars(
    gate: Gate, y: float, left: float, unit: float, width: float, *, striped: bool
) -> list[Part]:
    name = f"{gate.part}.{gate.layer}" if gate.part else gate.layer
    mark = {"entry": "", "depthwise": " dw", "head": " head"}[gate.kind]
    room = left - MARGIN - 14 - len(mark) * 6.1
    ratio = f"{100 * gate.ratio:.1f}%" if math.isfinite(gate.ratio) else "only h"
    parts: list[Part] = []
    if striped:
        parts.append(Box(x=MARGIN - 8, y=y, width=width - 2 * MARGIN + 16, height=24, fill="panel"))
    parts.append(Text(x=MARGIN, y=y + 16, text=tail_of(name, room, SMALL) + mark, size=SMALL))
    for fill, value, top in (("x", gate.x_rms, y + 3), ("h", gate.h_rms, y + 13)):
        long = value * unit
        full = f"{name}: {value:.4g}"
        parts.append(
            Box(x=left, y=top, width=max(long, 0.5), height=8, fill=fill, radius=1, full=full)
        )
        if long < 0.5:
            continue
        parts.append(Text(x=left + long + 4, y=top + 7, text=f"{value:.3g}", size=8, fill="muted"))
    parts.append(Text(x=width - MARGIN, y=y + 16, text=ratio, size=SMALL, anchor="end", bold=True))
    return parts


def draw_hidden(hidden: HiddenStates, *, columns: int = 8, tile: int = 96) -> Drawing:
    """h after each block as colours, stage by stage, with channels of each stage's last block."""
    pitch = tile + 14
    longest = max(
        (len(list(group)) for _, group in groupby(hidden.states, lambda s: (s.part, s.stage))),
        default=1,
    )
    columns = min(columns, max(longest, 6))
    width = 2 * MARGIN + columns * pitch - 14
    title = f"{hidden.model}: h along the depth"
    lines = [
        f"on {hidden.source}",
        "Colours are the first three principal components of h, the same for all blocks of a "
        "stage; brightness is each block's own. Below them, grey: the channels that vary most "
        "after the stage's last block.",
    ]
    parts, y = _top(title, lines, width)
    parts += [
        Image(x=MARGIN, y=y, width=tile, height=tile, pixels=hidden.photo),
        Text(x=MARGIN + tile + 12, y=y + 14, text="the image", size=SMALL, bold=True),
        Text(x=MARGIN + tile + 12, y=y + 29, text=_size(hidden.photo), size=SMALL, fill="muted"),
    ]
    y += tile + 20
    for (part, stage), group in groupby(hidden.states, lambda s: (s.part, s.stage)):
        made, y = _stage(part, stage, list(group), y, columns, tile)
        parts += made
    return Drawing(width=width, height=y + 4, parts=tuple(parts), title=title)


def _stage(
    part: str, stage: int, states: list[State], y: float, columns: int, tile: int
) -> tuple[list[Part], float]:
    """The maps of one stage; the y below them."""
    pitch = tile + 14
    k, height, width = states[-1].values.shape
    place = f"{part}, " if part else ""
    text = f"{place}stage {stage}: h of {k} channels, {height}×{width}"
    room = columns * pitch - 14
    parts: list[Part] = [
        Text(x=MARGIN, y=y + 10, text=shortened(text, room, 11), size=11, bold=True)
    ]
    y += 20
    for n, (state, pixels) in enumerate(zip(states, component_colours(states), strict=True)):
        x, top = MARGIN + (n % columns) * pitch, y + (n // columns) * (tile + 38)
        parts += [
            Image(x=x, y=top, width=tile, height=tile, pixels=pixels),
            Text(x=x, y=top + tile + 13, text=tail_of(state.block or "(network)", tile, SMALL),
                 size=SMALL),
            Text(x=x, y=top + tile + 26, text=f"rms {state.rms:.3g}", size=SMALL, fill="muted"),
        ]  # fmt: skip
    y += math.ceil(len(states) / columns) * (tile + 38)
    last, small = states[-1], tile // 2
    for n, channel in enumerate(liveliest(last, 2 * columns)):
        x = MARGIN + n * pitch // 2
        grey = np.rint(stretched(last.values[channel]) * 255).astype(np.uint8)
        pixels = np.repeat(grey[..., None], 3, axis=2)
        parts += [
            Image(x=x, y=y, width=small, height=small, pixels=pixels),
            Text(x=x, y=y + small + 10, text=f"{channel}", size=8, fill="muted"),
        ]
    return parts, y + small + 26


def _size(photo: Pixels) -> str:
    return f"{photo.shape[0]}×{photo.shape[1]} pixels"


def draw_cam(maps: ClassMaps, *, tile: int = 256) -> Drawing:
    """The photograph, and on it the maps without h and with it, side by side."""
    gap = 20
    width = 2 * MARGIN + 3 * tile + 2 * gap
    title = f"{maps.model}: where it sees {maps.label}"
    lines = [f"Grad-CAM of {maps.layer} on {maps.source}"]
    parts, y = _top(title, lines, width)
    height = tile * maps.photo.shape[0] / maps.photo.shape[1]
    panels: list[tuple[str, Pixels, ClassMap | None]] = [
        ("the image", maps.photo, None),
        ("without h", blended(maps.photo, maps.plain), maps.plain),
        ("with h", blended(maps.photo, maps.rla), maps.rla),
    ]
    for n, (name, pixels, found) in enumerate(panels):
        x = MARGIN + n * (tile + gap)
        parts.append(Text(x=x, y=y + 10, text=name, size=11, bold=True))
        parts.append(Image(x=x, y=y + 18, width=tile, height=height, pixels=pixels, smooth=True))
        said = [_size(maps.photo)]
        if found is not None:
            said = [f"{maps.label}: {found.score:.1%}"]
            if found.first != maps.label:
                said.append(f"first: {found.first}, {found.first_score:.1%}")
        for line, text in enumerate(said):
            parts.append(
                Text(
                    x=x, y=y + height + 34 + 14 * line, text=shortened(text, tile, SMALL),
                    size=SMALL, fill="ink" if found and not line else "muted",
                )
            )  # fmt: skip
    return Drawing(width=width, height=y + height + 62, parts=tuple(parts), title=title)


def blended(photo: Pixels, found: ClassMap) -> Pixels:
    """A photograph under its map: the hotter, the less is seen of it."""
    share = (0.25 + 0.5 * np.clip(found.heat, 0, 1))[..., None]
    grey = photo.mean(axis=2, keepdims=True)
    mixed: Pixels = np.rint(grey * (1 - share) + heat(found.heat) * share).astype(np.uint8)
    return mixed
