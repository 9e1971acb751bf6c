"""Networks as files that run without rlawrap."""

from __future__ import annotations

from rlawrap.deploy.export import export
from rlawrap.deploy.exported import Exported

__all__ = ["Exported", "export"]
