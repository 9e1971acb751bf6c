"""Channel attention (ECA, SE) at the end of the residual branches of any network."""

from __future__ import annotations

from rlawrap.attention.gates import ECA, SE, eca_kernel
from rlawrap.attention.insert import attend

__all__ = ["ECA", "SE", "attend", "eca_kernel"]
