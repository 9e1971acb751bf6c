"""The names under `rla.`: the one place that spells them.

A name is a promise: state dicts and checkpoints hold it. Keys are
`rla.input.<stage>_<channels>`, `rla.cell.<stage>.<layer>`, `rla.block.<i>.<layer>`,
`rla.inject.<i>` (`<i>_1`, … for further entries of one block), `rla.pool.<i>`, `rla.down.<i>`,
`rla.scale.<i>`, `rla.out.<i>`, `rla.head.norm` (`norm_<i>` where the h of another block than the
last joins a head, `norm_detached` where no gradient may pass on into it), `rla.head.act`,
`rla.head.join.<j>` and, without weights, `rla.head.trained.<j>`, with blocks counted through the
network from 0.
"""

from __future__ import annotations

import re

ROOT = "rla"
HEAD = f"{ROOT}.head"
HEAD_NORM = f"{HEAD}.norm"
HEAD_ACT = f"{HEAD}.act"
#: The parts of `rla` that hold a module for each key.
PARTS = ("input", "cell", "block", "inject", "pool", "down", "scale", "out")
#: Those of them that hold what a recurrent cell is made of.
CELL_PARTS = ("cell", "block")

_NUMBERED = re.compile(rf"{ROOT}\.(?:block|inject|pool|down|scale|out)\.(\d+)(?:_\d+)?(?:\.|$)")


def part(name: str) -> str:
    """One of `PARTS`, which holds a module for each key."""
    return f"{ROOT}.{name}"


def source(key: str) -> str:
    """Conv1x1 from what updates h to its k channels."""
    return f"{ROOT}.input.{key}"


def cell(key: str) -> str:
    """The recurrent cell that blocks share."""
    return f"{ROOT}.cell.{key}"


def block(index: int) -> str:
    """What a block owns of the cell."""
    return f"{ROOT}.block.{index}"


def inject(name: str) -> str:
    """The way of h into a block's convolution."""
    return f"{ROOT}.inject.{name}"


def pool(index: int) -> str:
    """The way of h from the block before to the size of this block's input."""
    return f"{ROOT}.pool.{index}"


def down(index: int) -> str:
    """The way of h to the size of the block's output."""
    return f"{ROOT}.down.{index}"


def scale(index: int) -> str:
    """The way of what updates h to the size of the block's output."""
    return f"{ROOT}.scale.{index}"


def output(index: int) -> str:
    """The identity on a block's output."""
    return f"{ROOT}.out.{index}"


def head_norm(key: str) -> str:
    """The norm of an h before the heads that it joins; the key of the last block's is empty."""
    return f"{HEAD_NORM}_{key}" if key else HEAD_NORM


def join(name: str) -> str:
    """The way of h into the classifier."""
    return f"{HEAD}.join.{name}"


def trained(name: str) -> str:
    """In train mode, where the classifier runs elsewhere: h's way to the last layer of its join."""
    return f"{HEAD}.trained.{name}"


def is_added(key: str) -> bool:
    """Whether a module path or a key of a state dict is of what the rewrite added."""
    return key == ROOT or key.startswith(f"{ROOT}.")


def is_output(path: str) -> bool:
    """Whether a module path is that of an identity on a block's output."""
    return path.startswith(f"{ROOT}.out.")


def is_join(path: str) -> bool:
    """Whether a module path is that of a way of h into the classifier."""
    return path.startswith(f"{HEAD}.join.")


def block_index(path: str) -> int | None:
    """The number of the block that a module belongs to, None for shared ones and the head."""
    found = _NUMBERED.match(path)
    return int(found[1]) if found else None
