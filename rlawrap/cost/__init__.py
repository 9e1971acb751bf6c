"""Parameters, MACs and FLOPs, each with its unit."""

from __future__ import annotations

from rlawrap.cost.measure import cost
from rlawrap.cost.report import Cost, Count, PartCost

__all__ = ["Cost", "Count", "PartCost", "cost"]
