"""The picture of a plan: blocks in rows, the main path through them and the lane of h below.

Each row is read from left to right and goes on in the next, as lines of text do.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlawrap.config import RLAConfig
from rlawrap.plan import Plan
from rlawrap.show.drawing import Box, Dot, Drawing, Part, Route, Text, moved, shortened, wrapped
from rlawrap.show.plan_rows import MOST, Band, Cell, bands_of, sides

CARD, HEIGHT, GAP, MARGIN = 146, 60, 18, 34
#: From a card's top to the lane of h, and to the row that follows.
LANE, ROW = 82, 106
#: From a card's left to where h enters and to the cell that updates it.
ENTER, CELL = 24, CARD - 24
SMALL, NAME = 10, 11


def draw_plan(plan: Plan, config: RLAConfig | None = None, *, where: str = "") -> Drawing:
    """The drawing of a plan; `config` adds what h is, `where` the module that the plan is of."""
    bands = bands_of(plan, config)
    longest = max((len(row) for band in bands for row in band.rows), default=1)
    columns = min(MOST, max(4, longest, len(plan.joined)))
    width = 2 * MARGIN + columns * (CARD + GAP) - GAP
    title = _title(plan, where)
    parts, y = _top(title, config, width)
    for band in bands:
        made, y = _band(band, y, width, last=band is bands[-1], joins=bool(plan.joined))
        parts += made
    if plan.joined:
        made, y = _head(plan.joined, y, width, columns)
        parts += made
    made, y = _foot(plan, y, width)
    return Drawing(width=width, height=y + 12, parts=(*parts, *made), title=title)


def _title(plan: Plan, where: str) -> str:
    place = f"{where}: " if where else ""
    size = sides(plan.input_shape[1:])
    at = f" at {size}" if size else ""
    blocks, stages = len(plan.blocks), len(plan.stages)
    counted = f"{blocks} block{'s' * (blocks != 1)} in {stages} stage{'s' * (stages != 1)}"
    return f"{place}{plan.model}{at}: {counted}"


def _top(title: str, config: RLAConfig | None, width: float) -> tuple[list[Part], float]:
    """Title, what h is, and the legend."""
    room = width - 2 * MARGIN
    parts: list[Part] = [Text(x=MARGIN, y=28, text=shortened(title, room, 14), size=14, bold=True)]
    y = 50.0
    if config is not None:
        said = f"h: {config.k} channels, cell {config.cell}, updated from the {config.source}"
        said = shortened(said, room, SMALL)
        parts.append(Text(x=MARGIN, y=46, text=said, size=SMALL, fill="muted"))
        y = 66.0
    arrow = ((0.0, 0.0), (20.0, 0.0))
    x = float(MARGIN)
    for mark, text in (
        ([Route(points=arrow, line="x", arrow=True)], "main path x"),
        ([Route(points=arrow, line="h", arrow=True)], "hidden state h"),
        ([Dot(x=10, y=0, radius=5, fill="h")], "recurrent cell"),
        (_mark(8, 0, "÷2"), "average pool of h"),
    ):
        parts += moved(mark, x, y - 4)
        parts.append(Text(x=x + 28, y=y, text=text, size=SMALL, fill="muted"))
        x += 28 + len(text) * 6.02 + 22
    return parts, y + 16


def _mark(x: float, y: float, text: str) -> list[Part]:
    """A pool of h on its lane."""
    wide = max(24, len(text) * 5.5 + 6)
    box = Box(
        x=x - wide / 2, y=y - 7, width=wide, height=14, fill="h_soft", line="h", radius=3,
        full="h is average-pooled" if text[:1] == "÷" else "h is resized",
    )  # fmt: skip
    return [box, Text(x=x, y=y + 3.3, text=text, size=9, anchor="middle")]


def _band(
    band: Band, y: float, width: float, *, last: bool, joins: bool
) -> tuple[list[Part], float]:
    """One stage on its panel; the y below it."""
    height = 26 + len(band.rows) * ROW
    parts: list[Part] = [
        Box(x=10, y=y, width=width - 20, height=height, fill="panel", radius=8),
        Text(
            x=MARGIN, y=y + 17, text=shortened(band.heading, width - 2 * MARGIN, NAME),
            size=NAME, fill="muted", bold=True,
        ),
    ]  # fmt: skip
    for n, row in enumerate(band.rows):
        final = last and n == len(band.rows) - 1
        parts += _row(row, y + 26 + n * ROW, width, ends=final and not joins, final=final)
    return parts, y + height + 10


def _row(row: Sequence[Cell], top: float, width: float, *, ends: bool, final: bool) -> list[Part]:
    """A row of blocks. ends: the last one's h is read by nobody. final: no block follows it."""
    parts: list[Part] = []
    middle, lane = top + HEIGHT / 2, top + LANE
    for n, cell in enumerate(row):
        x = MARGIN + n * (CARD + GAP)
        came = x - GAP if n else 12.0
        parts.append(Route(points=((came, middle), (x, middle)), line="x", width=1.8, arrow=True))
        parts += _lane(cell, x, lane, x + CELL - CARD - GAP if n else 12.0)
        parts += _card(cell, x, top)
        following = n + 1 < len(row)
        if not following:
            right = min(x + CARD + GAP, width - 12)
            parts.append(
                Route(points=((x + CARD, middle), (right, middle)), line="x", width=1.8, arrow=True)
            )
            if cell.goes_on or (final and not ends):
                points = ((x + CELL + 5, lane), (right, lane))
                parts.append(Route(points=points, line="h", width=1.8, arrow=True))
    return parts


def _lane(cell: Cell, x: float, lane: float, came: float) -> list[Part]:
    """h from what the block reads (at `came`, if the block before) to the cell that updates it."""
    parts: list[Part] = []
    start = came
    if cell.reads:
        start = x + 2.0
        parts.append(Dot(x=start - 3, y=lane, radius=4, fill="paper", line="h"))
        text = shortened(cell.reads, CARD - 6, 9)
        parts.append(Text(x=x, y=lane + 16, text=text, size=9, fill="h"))
    parts.append(Route(points=((start, lane), (x + CELL - 5, lane)), line="h", width=1.8))
    if cell.brought:
        parts += _mark(x + ENTER - 17 if not cell.reads else x + ENTER + 16, lane, cell.brought)
    if cell.pooled:
        parts += _mark(x + (ENTER + CELL) / 2 + 6, lane, cell.pooled)
    under = lane - LANE + HEIGHT
    if cell.enters:
        parts.append(Route(points=((x + ENTER, lane), (x + ENTER, under)), line="h", arrow=True))
    parts.append(Route(points=((x + CELL, under), (x + CELL, lane - 5)), line="h", arrow=True))
    parts.append(Dot(x=x + CELL, y=lane, radius=5, fill="h"))
    return parts


def _card(cell: Cell, x: float, top: float) -> list[Part]:
    """A block: its name, class, channels and stride, and where h enters and is updated from."""
    block, room = cell.block, CARD - 14
    name = tail_of(block.path or "(network)", room)
    stride = f"  /{block.stride:g}" if block.stride not in (None, 1) else ""
    half = room / 2
    enters = f"→{cell.enters}" if cell.enters else ""
    full = f"{block.path or '(network)'}: h enters at {cell.enters or 'no layer'}"
    return [
        Box(x=x, y=top, width=CARD, height=HEIGHT, fill="card", line="edge", full=full),
        Text(x=x + 7, y=top + 14, text=name, size=NAME, bold=True),
        Text(
            x=x + 7, y=top + 27, text=shortened(block.class_name, room, SMALL), size=SMALL,
            fill="muted",
        ),
        Text(x=x + 7, y=top + 40, text=shortened(cell.channels + stride, room, SMALL), size=SMALL),
        Text(x=x + 7, y=top + 54, text=shortened(enters, half + 14, 9), size=9, fill="h"),
        Text(
            x=x + CARD - 7, y=top + 54, text=shortened(f"{cell.leaves}→", half - 18, 9), size=9,
            fill="h", anchor="end",
        ),
    ]  # fmt: skip


def tail_of(path: str, width: float, size: float = NAME) -> str:
    """A path that fits a width, without the names in front that do not.

    >>> tail_of("features.denseblock4.denselayer16", 130)
    '…denselayer16'
    """
    names = path.split(".")
    for n in range(len(names)):
        text = ("…" if n else "") + ".".join(names[n:])
        if shortened(text, width, size) == text:
            return text
    return shortened(path, width, size)


def _head(head: Sequence[str], y: float, width: float, columns: int) -> tuple[list[Part], float]:
    """The layers that the last h joins."""
    shown, more = list(head[:columns]), len(head) - columns
    heading = "head: h joins the classifier" + (f", and {more} more layers" if more > 0 else "")
    parts: list[Part] = [
        Box(x=10, y=y, width=width - 20, height=86, fill="panel", radius=8),
        Text(
            x=MARGIN, y=y + 17, text=shortened(heading, width - 2 * MARGIN, NAME), size=NAME,
            fill="muted", bold=True,
        ),
    ]  # fmt: skip
    top, lane = y + 26, y + 72
    for n, path in enumerate(shown):
        x = MARGIN + n * (CARD + GAP)
        middle = top + 14
        parts += [
            Route(points=((x - 12, middle), (x, middle)), line="x", width=1.8, arrow=True),
            Route(points=((x - 12, lane), (x + ENTER, lane)), line="h", width=1.8),
            Route(points=((x + ENTER, lane), (x + ENTER, top + 28)), line="h", arrow=True),
            Box(x=x, y=top, width=CARD, height=28, fill="card", line="edge", full=path),
            Text(x=x + 7, y=top + 18, text=tail_of(path, CARD - 14), size=NAME, bold=True),
        ]
    return parts, y + 96


def _foot(plan: Plan, y: float, width: float, most: int = 6) -> tuple[list[Part], float]:
    """What was left out and why, and the notes."""
    said = [f"left out: {path}: {reason}" for path, reason in plan.left_out]
    said += [f"note: {b.path}: {b.note}" for b in plan.blocks if b.note]
    said += [f"note: {text}" for text in plan.notes]
    lines = [line for text in said for line in wrapped(text, width - 2 * MARGIN, SMALL)]
    if len(lines) > most:
        lines = [*lines[: most - 1], f"… {len(lines) - most + 1} lines more in print(plan)"]
    parts: list[Part] = []
    for line in lines:
        y += 14
        parts.append(Text(x=MARGIN, y=y, text=line, size=SMALL, fill="muted"))
    return parts, y
