"""The recurrent cells, in a registry: a new one is one class and one registration."""

from __future__ import annotations

from rlawrap.cells.base import Cell, CellSpec, Part, make_norm, published_weights
from rlawrap.cells.cell_registry import get_cell, list_cells, register_cell
from rlawrap.cells.conv import ConvCell, DepthwiseCell
from rlawrap.cells.gru import ConvGRUCell
from rlawrap.cells.lstm import ConvLSTMCell
from rlawrap.cells.tanh import fast_tanh

__all__ = [
    "Cell",
    "CellSpec",
    "ConvCell",
    "ConvGRUCell",
    "ConvLSTMCell",
    "DepthwiseCell",
    "Part",
    "fast_tanh",
    "get_cell",
    "list_cells",
    "make_norm",
    "published_weights",
    "register_cell",
]
