"""Exact algebra for inference: a rewritten network with its norms and its h folded together."""

from rlawrap.fuse.fuse import Target, fuse
from rlawrap.fuse.report import FuseReport, FuseStep

__all__ = ["FuseReport", "FuseStep", "Target", "fuse"]
