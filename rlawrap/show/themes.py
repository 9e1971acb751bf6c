"""The colours of pictures, light and dark, by what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rlawrap.show.drawing import Pixels

#: paper: the sheet. panel: a stage. card: a block. x: the main path. h: the hidden state.
LIGHT: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#ffffff",
        "panel": "#f3f4f6",
        "card": "#ffffff",
        "edge": "#c3c9d3",
        "ink": "#1b2330",
        "muted": "#596475",
        "x": "#35609c",
        "h": "#ad3f08",
        "h_soft": "#fbe6da",
        "x_soft": "#b3c7e2",
    }
)
DARK: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#14181f",
        "panel": "#1e242e",
        "card": "#2a323f",
        "edge": "#4b5668",
        "ink": "#e8ecf2",
        "muted": "#a3adbd",
        "x": "#7fa9e0",
        "h": "#ff9a5c",
        "h_soft": "#54331f",
        "x_soft": "#41597c",
    }
)


def colour(name: str, dark: bool) -> str:
    """ "#rrggbb" of a colour's name; a colour that is written so already, itself.

    >>> colour("paper", dark=False), colour("#010203", dark=True)
    ('#ffffff', '#010203')
    """
    return name if name.startswith("#") else (DARK if dark else LIGHT)[name]


_HEAT = np.array(
    [(0, 0, 4), (51, 10, 95), (120, 28, 109), (188, 55, 84), (237, 105, 37), (252, 180, 26),
     (252, 255, 164)],
    dtype=np.float64,
)  # fmt: skip


def heat(values: NDArray[np.floating]) -> Pixels:
    """Numbers between 0 and 1 as colours from black over red to yellow: uint8 [..., 3]."""
    place = np.clip(np.asarray(values, dtype=np.float64), 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(place.astype(np.int64), len(_HEAT) - 2)
    part = (place - low)[..., None]
    mixed: Pixels = np.rint(_HEAT[low] * (1 - part) + _HEAT[low + 1] * part).astype(np.uint8)
    return mixed
