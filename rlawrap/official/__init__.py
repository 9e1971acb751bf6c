"""Checkpoints of the official RLA-Net code, in and out."""

from __future__ import annotations

from rlawrap.official.convert import load_official, official_state_dict

__all__ = ["load_official", "official_state_dict"]
