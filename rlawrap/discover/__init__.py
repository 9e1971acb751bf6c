"""Flow -> Plan: the only place that knows how convolutional networks are written."""

from __future__ import annotations

from rlawrap.discover.inspect import inspect

__all__ = ["inspect"]
