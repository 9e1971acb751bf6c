"""Plan -> rows of blocks with what happens to h at each: the plan's picture before coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlawrap.config import RLAConfig
from rlawrap.plan import Block, Plan, Stage, short_reference

#: Blocks in a row of the picture.
MOST = 7


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One block of the picture.

    reads: what h comes from where that is not the block before. brought, pooled: by how much h is
    pooled before the block and within it, "" for not at all.
    """

    block: Block
    index: int
    channels: str
    enters: str
    leaves: str
    reads: str = ""
    brought: str = ""
    pooled: str = ""
    #: Whether the next block reads this one's h.
    goes_on: bool = True


@dataclass(frozen=True, kw_only=True)
class Band:
    """One stage: its heading and its blocks in rows."""

    heading: str
    rows: tuple[tuple[Cell, ...], ...]


def bands_of(plan: Plan, config: RLAConfig | None = None) -> tuple[Band, ...]:
    """The stages of a plan; `config` says what h is updated from and what shares a cell.

    >>> block = Block(path="a", entries=("a.conv",), output="a", in_channels=8, channels=16)
    >>> band, = bands_of(Plan.of("Net", [[block]]))
    >>> band.heading, band.rows[0][0].channels, band.rows[0][0].enters
    ('stage 0: 1 block, one recurrent cell', '8→16', 'conv')
    """
    settled = config or RLAConfig(initial_state="zeros")
    parents = [_parent(i, block) for i, block in enumerate(plan.blocks)]
    made: list[Band] = []
    start = 0
    for stage in plan.stages:
        cells = [
            _cell(plan, parents, start + n, block, settled) for n, block in enumerate(stage.blocks)
        ]
        wide = math.ceil(len(cells) / math.ceil(len(cells) / MOST)) if cells else 1
        rows = tuple(tuple(cells[n : n + wide]) for n in range(0, len(cells), wide))
        made.append(Band(heading=_heading(stage, settled), rows=rows))
        start += len(cells)
    return tuple(made)


def sides(size: tuple[int, ...] | None) -> str:
    """A size as it is written, nothing for none.

    >>> sides((56, 48))
    '56×48'
    """
    return "×".join(map(str, size or ()))


def _heading(stage: Stage, config: RLAConfig) -> str:
    sizes = list(dict.fromkeys(sides(b.size) for b in stage.blocks if b.size))
    size = f", {sizes[0]}" if len(sizes) == 1 else f", {sizes[0]} to {sizes[-1]}" if sizes else ""
    count = len(stage.blocks)
    blocks = f"{count} block" + "s" * (count != 1) + _holder(stage)
    cell = {
        "stage": "one recurrent cell",
        "network": "the network's one recurrent cell",
        "none": "a recurrent cell each",
    }[config.share]
    return f"stage {stage.index}{size}: {blocks}, {cell}"


def _holder(stage: Stage) -> str:
    """The module that all blocks of a stage lie in, where it is a long way down."""
    names = [block.path.split(".")[:-1] for block in stage.blocks]
    shared = [level[0] for level in zip(*names, strict=False) if len(set(level)) == 1]
    return f" in {'.'.join(shared)}" if len(shared) > 1 else ""


def _cell(plan: Plan, parents: list[int | None], i: int, block: Block, config: RLAConfig) -> Cell:
    parent = parents[i]
    before = None if parent is None else plan.blocks[parent]
    reads = ""
    if parent is None:
        reads = "h0 = 0" if i == 0 else "h from zeros"
    elif parent != i - 1 and before is not None:
        reads = f"h of {before.path or '(network)'}"
    leaves = {"output": "out", "input": "in"}.get(config.source, "")
    if not leaves:
        leaves = short_reference(block.branch, block.path) if block.branch else "out"
    enters = ", ".join(short_reference(e, block.path) for e in plan.entered(block))
    if config.inject == "none" or (parent is None and config.initial_state == "none"):
        enters = ""  # h^0 = 0 would add nothing
    return Cell(
        block=block,
        index=i,
        channels=_channels(block),
        enters=enters,
        leaves=leaves,
        reads=reads,
        brought=_brought(before, block),
        pooled=_factor(block.stride),
        goes_on=i + 1 < len(parents) and parents[i + 1] == i,
    )


def _channels(block: Block) -> str:
    if block.channels is None:
        return ""
    if block.in_channels in (None, block.channels):
        return str(block.channels)
    return f"{block.in_channels}→{block.channels}"


def _parent(i: int, block: Block) -> int | None:
    if block.after == "previous":
        return i - 1 if i else None
    return block.after if isinstance(block.after, int) else None


def _factor(stride: float | None) -> str:
    """ "÷2" for a stride of 2, "×2" for one of a half, "" for 1."""
    if stride is None or stride == 1 or stride <= 0:
        return ""
    return f"÷{stride:.2g}" if stride > 1 else f"×{1 / stride:.2g}"


def _brought(before: Block | None, block: Block) -> str:
    """How h gets from the size of the block before to that of this block's input.

    Sizes are those of outputs; a stride may have rounded either way.
    """
    if before is None or not before.size or not block.size:
        return ""
    stride = block.stride or 1
    had, has = before.size[-1], block.size[-1]
    if has in (math.ceil(had / stride), math.floor(had / stride)):
        return ""
    return _factor(float(f"{had / (has * stride):.2g}"))
