"""Pictures of plans, hidden states, class maps and gates: measured as data, then drawn."""

from __future__ import annotations

from rlawrap.show.picture import Picture, show

__all__ = ["Picture", "show"]
