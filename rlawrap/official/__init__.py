"""Checkpoints of the official RLA-Net code, in and out."""

from __future__ import annotations

from rlawrap.official.convert import (
    is_official,
    load_official,
    official_leftovers,
    official_state_dict,
)
from rlawrap.official.layout import official_names

__all__ = [
    "is_official",
    "load_official",
    "official_leftovers",
    "official_names",
    "official_state_dict",
]
