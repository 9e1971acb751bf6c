"""rlawrap: a recurrent memory along the depth of any convolutional network."""

from __future__ import annotations

from rlawrap.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    PlanError,
    RLAError,
    TraceError,
    TrainError,
)

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "PlanError",
    "RLAError",
    "TraceError",
    "TrainError",
]
