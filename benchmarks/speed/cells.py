"""What is measured: a cell is one network at one k, batch, mode, treatment and heap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

NETS = ("resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "resnet101")
KS = (8, 16, 32, 64)
BATCHES = (8, 1, 32)
#: The networks with targets, at k = 32 and batch 8.
TARGET_NETS = ("resnet50", "mobilenet_v2")
#: How both sides are treated. memory: peak memory in place of time.
TREATMENTS = ("eager", "folded", "compiled", "frozen", "onnx", "memory")
MODES = ("inference", "training")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """heap: "kept" keeps freed memory in the process, "usual" is glibc as it comes.

    target: one of the rows with a target, measured with more rounds.
    """

    net: str
    k: int
    batch: int
    mode: str
    treatment: str
    heap: str = "kept"
    target: bool = False

    @property
    def key(self) -> str:
        """What the cell is called in the results.

        >>> Cell(net="resnet50", k=8, batch=1, mode="inference", treatment="eager").key
        'resnet50 k8 b1 inference eager kept'
        """
        return f"{self.net} k{self.k} b{self.batch} {self.mode} {self.treatment} {self.heap}"


def possible(mode: str, treatment: str) -> bool:
    """Only inference has folded, frozen and exported networks."""
    return mode == "inference" or treatment in ("eager", "compiled", "memory")


def target_cells() -> list[Cell]:
    """The rows with a target, in both heap regimes, and their peak memory."""
    cells = [
        Cell(net=net, k=32, batch=8, mode=mode, treatment=treatment, heap=heap, target=True)
        for heap in ("kept", "usual")
        for net in TARGET_NETS
        for mode in MODES
        for treatment in ("eager", "folded", "frozen", "onnx")
        if possible(mode, treatment)
    ]
    return cells + [
        Cell(net=net, k=32, batch=8, mode=mode, treatment="memory", heap="mapped")
        for net in TARGET_NETS
        for mode in MODES
    ]


def matrix_cells() -> list[Cell]:
    """Every network, k and batch eager and folded; the other treatments at k = 32 and batch 8."""
    cells = _at_32(("inference", "onnx"), ("training", "memory"), ("inference", "memory"))
    for batch in BATCHES[:2]:
        cells += _every_k(batch)
    cells += _at_32(("inference", "frozen"), ("inference", "compiled"))
    for batch in BATCHES[2:]:
        cells += _every_k(batch)
    return cells


def _at_32(*ways: tuple[str, str]) -> list[Cell]:
    return [
        Cell(
            net=net,
            k=32,
            batch=8,
            mode=mode,
            treatment=treatment,
            heap="mapped" if treatment == "memory" else "kept",
        )
        for mode, treatment in ways
        for net in NETS
    ]


def _every_k(batch: int) -> list[Cell]:
    ways = (("inference", "eager"), ("inference", "folded"), ("training", "eager"))
    return [
        Cell(net=net, k=k, batch=batch, mode=mode, treatment=treatment)
        for mode, treatment in ways
        for net in NETS
        for k in KS
    ]


def every_cell(batches: Sequence[int] = BATCHES) -> list[Cell]:
    """The full product, every treatment everywhere: hours."""
    return [
        Cell(net=net, k=k, batch=batch, mode=mode, treatment=treatment, heap=heap)
        for batch in batches
        for net in NETS
        for mode in MODES
        for treatment in TREATMENTS
        for heap in (("mapped",) if treatment == "memory" else ("kept", "usual"))
        if possible(mode, treatment)
        for k in KS
    ]


def distinct(cells: Iterable[Cell]) -> list[Cell]:
    """The first of each key."""
    kept: dict[str, Cell] = {}
    for cell in cells:
        kept.setdefault(cell.key, cell)
    return list(kept.values())


def matching(cells: Iterable[Cell], wanted: dict[str, Sequence[Any]]) -> list[Cell]:
    """Those whose fields are among the values given for them; no values, no condition.

    >>> cells = matching(matrix_cells(), {"net": ["resnet50"], "k": [8], "mode": ["training"]})
    >>> [cell.batch for cell in cells]
    [8, 1, 32]
    """
    return [
        cell
        for cell in cells
        if all(not values or asdict(cell)[name] in values for name, values in wanted.items())
    ]


def grouped(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that one process measures together, since they differ in k alone and share the base.

    >>> [len(group) for group in grouped(matching(matrix_cells(), {"net": ["resnet50"]}))][-3:]
    [4, 4, 4]
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        # Peak memory is that of a process, and compilers keep what they made for other shapes.
        alone = cell.target or cell.treatment in ("memory", "compiled", "frozen")
        name = cell.key if alone else replace(cell, k=0).key
        groups.setdefault(name, []).append(cell)
    return list(groups.values())
