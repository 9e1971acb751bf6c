"""`Cost`: what a network costs, in exact integers, and the table that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

MI, GI = 2**20, 2**30


@dataclass(frozen=True, kw_only=True)
class Count:
    """Exact counts for one image.

    `params` counts a shared parameter once; the others count every call. `macs` are the
    multiply-accumulates of convolutions, linear layers and other matrix products.
    """

    params: int = 0
    macs: int = 0
    norm_elements: int = 0
    pool_elements: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations of the same layers: a multiplication and an addition a MAC."""
        return 2 * self.macs

    @property
    def paper_ops(self) -> int:
        """What the RLA-Net paper calls FLOPs (it prints them divided by 2**30).

        MACs, two per batch-norm output, and one per output of average pooling (per input of
        global pooling inside a block, as ECA and SE do it). See docs/costs.md.
        """
        return self.macs + 2 * self.norm_elements + self.pool_elements

    def __add__(self, other: Count) -> Count:
        return Count(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def to_dict(self) -> dict[str, int]:
        """Fields and derived counts, all integers."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**own, "flops": self.flops, "paper_ops": self.paper_ops}


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """The cost of one stage (or of the stem or the head): the base network's, and what RLA adds."""

    name: str
    base: Count
    rla: Count

    @property
    def total(self) -> Count:
        return self.base + self.rla


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a network for one input of `input_shape` (batch 1), in eval mode.

    `print(cost)` shows a table; `cost.total.params` and its siblings are exact integers.
    `thop` is that package's count, or None where it is not installed or cannot count the model.
    """

    name: str
    input_shape: tuple[int, ...]
    parts: tuple[PartCost, ...]
    thop: int | None = None
    thop_note: str = ""

    @property
    def base(self) -> Count:
        """The base network alone."""
        return sum((part.base for part in self.parts), Count())

    @property
    def rla(self) -> Count:
        """What the hidden state adds; all zeros for a plain network."""
        return sum((part.rla for part in self.parts), Count())

    @property
    def total(self) -> Count:
        """Base and hidden state together."""
        return self.base + self.rla

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, ready for JSON."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "total": self.total.to_dict(),
            "base": self.base.to_dict(),
            "rla": self.rla.to_dict(),
            "parts": [
                {"name": p.name, "base": p.base.to_dict(), "rla": p.rla.to_dict()}
                for p in self.parts
            ],
            "thop": self.thop,
        }

    def __str__(self) -> str:
        size = "x".join(map(str, self.input_shape))
        return "\n".join(
            [f"{self.name}, input {size}", "", *self._part_lines(), "", *self._totals()]
        )

    def _part_lines(self) -> list[str]:
        grown = self.rla != Count()
        whole = PartCost(name="total", base=self.base, rla=self.rla)
        header = ["part", "params", "MACs"]
        header += ["RLA params", "RLA MACs", "sum params", "sum MACs"] if grown else []
        if grown:
            header[1:3] = ["base params", "base MACs"]
        rows = [header]
        for part in (*self.parts, whole):
            counts = (part.base, part.rla, part.total) if grown else (part.base,)
            rows.append([part.name, *(f"{n:,}" for c in counts for n in (c.params, c.macs))])
        return format_table(rows, rule_before_last=True)

    def _totals(self) -> list[str]:
        total = self.total
        rows = [
            ["parameters", f"{total.params:,}", f"{total.params / MI:.2f} x 2^20"],
            ["MACs", f"{total.macs:,}", f"{in_decimal_units(total.macs)}   conv + linear"],
            ["FLOPs", f"{total.flops:,}", f"{in_decimal_units(total.flops)}   2 x MACs"],
            [
                "paper's count",
                f"{total.paper_ops:,}",
                f"{in_paper_units(total.paper_ops)}   MACs + 2 x batch norm + average pooling",
            ],
        ]
        if self.thop is None:
            rows.append(["thop", "-", self.thop_note])
        else:
            rows.append(["thop", f"{self.thop:,}", f"{in_paper_units(self.thop)}   its own rules"])
        return format_table(rows, left=(0, 2))


def in_decimal_units(operations: int) -> str:
    """Operations in billions, or in millions below one billion.

    >>> in_decimal_units(4_454_648_064), in_decimal_units(352_505_728)
    ('4.45 x 10^9', '352.5 x 10^6')
    """
    if operations >= 10**9:
        return f"{operations / 1e9:.2f} x 10^9"
    return f"{operations / 1e6:.1f} x 10^6"


def in_paper_units(operations: int) -> str:
    """Operations over 2^30, or over 2^20 for what is smaller than that.

    >>> in_paper_units(4_477_866_656), in_paper_units(368_908_576)
    ('4.17 x 2^30', '351.8 x 2^20')
    """
    if operations >= GI:
        return f"{operations / GI:.2f} x 2^30"
    return f"{operations / MI:.1f} x 2^20"


def format_table(
    rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,), rule_before_last: bool = False
) -> list[str]:
    """Lines of a table of plain text: columns padded, aligned right except those in `left`."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if rule_before_last:
        lines.insert(-1, "-" * max(map(len, lines)))
    return lines
