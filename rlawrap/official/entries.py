"""Entry and Layout: an official tensor as tensors of ours, and all of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One official tensor: its key, our keys, and the axis they are joined along.

    Without an axis, several keys of ours are copies of the one official tensor. `shape` is that of
    a tensor that a backbone was cut of, which has no parts.
    """

    key: str
    parts: tuple[str, ...]
    axis: int | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Layout:
    """The official tensors of a model, and what the names begin with of those it was cut of.

    is_backbone: the model was cut, so that an official detector or a whole network has more.
    """

    entries: list[Entry]
    left_out: tuple[str, ...] = ()
    is_backbone: bool = False
