"""model -> Plan: the only place that knows how convolutional networks are written."""

from __future__ import annotations

from rlawrap.discover.inspect import Traced, inspect, trace_model

__all__ = ["Traced", "inspect", "trace_model"]
