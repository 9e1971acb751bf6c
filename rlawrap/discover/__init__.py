"""Flow -> Plan: the only place that knows how convolutional networks are written."""

from __future__ import annotations

from rlawrap.discover.planning import make_plan

__all__ = ["make_plan"]
