"""Resuming with torch 2.6 and newer, which by default load no classes but torch's own."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

#: The methods that every `HistoryBuffer` lists in its pickle.
_STATISTICS = ("min", "max", "current", "mean")


def allow_mmengine_checkpoints() -> None:
    """Let `torch.load` read the checkpoints that mmengine's Runner writes, and no code.

    Beside the weights they hold the logged values, as NumPy arrays in mmengine's `HistoryBuffer`.
    Since torch 2.6 `torch.load`, which mmengine calls, refuses what is not named with
    `torch.serialization.add_safe_globals`; this names these few, which are data. For the whole
    process; importing `rlawrap.integrations.mmdet` calls it.

    >>> allow_mmengine_checkpoints()
    >>> HistoryBuffer in torch.serialization.get_safe_globals()
    True
    """
    array, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    kinds = ("bool", "int32", "int64", "float32", "float64")
    allowed: list[Any] = [
        HistoryBuffer,
        # A buffer's methods are pickled as getattr(HistoryBuffer, "min"); with the real one a file
        # could reach anything from there.
        (_statistic, "builtins.getattr"),
        np.ndarray,
        np.dtype,
        *dict.fromkeys(type(np.dtype(kind)) for kind in kinds),
        # NumPy 2 moved both, and a file may come from the other NumPy.
        *((array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]
    torch.serialization.add_safe_globals(allowed)


def _statistic(owner: Any, name: str) -> Any:
    """What pickles may have of `getattr`."""
    if owner is HistoryBuffer and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f"the file asks for the attribute {name!r} of {owner!r}.")
