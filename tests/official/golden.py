"""Weights and inputs made by a rule, and what the official models compute from them.

`facts.json` holds measurements of the official RLA-Net code: parameters, multiply-accumulates of
convolutions and linear layers and batch-norm outputs at 224x224; the number of tensors in its state
dict and a digest of their keys and shapes in order; and for some models the logits in float64 and
eval mode of two 64x64 images, with weights and images made by the rule below with seed 1.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FACTS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("facts.json").read_text("utf-8")
)
WITH_LOGITS = [name for name, fact in FACTS.items() if "logits_mean" in fact]
WITH_LAYOUT = [name for name, fact in FACTS.items() if "layout" in fact]


def filled(state: Mapping[str, Tensor], seed: int = 1) -> dict[str, Tensor]:
    """A state dict of these keys and shapes, every tensor from its key and the seed."""
    made = {}
    for key, like in state.items():
        if key.endswith("num_batches_tracked"):
            made[key] = torch.zeros((), dtype=torch.long)
            continue
        phase = (zlib.crc32(f"{seed}:{key}".encode()) % 100003) / 100003
        steps = torch.arange(1, like.numel() + 1, dtype=torch.float64)
        u = torch.frac(steps * 0.6180339887498949 + phase)
        if key.endswith("running_mean"):
            u = 0.2 * (u - 0.5)
        elif not key.endswith("running_var") and like.dim() > 1:
            u = (u - 0.5) * math.sqrt(12 * like.shape[0] / like.numel())
        elif key.endswith("bias"):
            u = 0.2 * (u - 0.5)
        else:  # variances and norm weights
            u = 0.5 + u
        made[key] = u.reshape(like.shape)
    return made


def images(batch: int = 2, side: int = 64, seed: int = 1) -> Tensor:
    """Images made by the rule: (batch, 3, side, side), float64."""
    steps = torch.arange(1, batch * 3 * side * side + 1, dtype=torch.float64)
    values = torch.frac(steps * 0.7548776662466927 + 0.1 * seed) - 0.5
    return (values * 3.4).reshape(batch, 3, side, side)


def layout_digest(state: Mapping[str, Tensor]) -> str:
    """A digest of keys and shapes in order."""
    pairs = [[key, list(value.shape)] for key, value in state.items()]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]
