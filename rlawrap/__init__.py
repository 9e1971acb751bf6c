"""rlawrap: a recurrent memory along the depth of any convolutional network."""

from __future__ import annotations

from rlawrap import models
from rlawrap.cells import Cell, CellSpec, register_cell
from rlawrap.config import RLAConfig, variant
from rlawrap.discover import inspect
from rlawrap.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    PlanError,
    RLAError,
    TraceError,
    TrainError,
)
from rlawrap.plan import Block, Plan, Stage
from rlawrap.splice import RLAModel, RLAWarning, apply, disabled, rla_state_dict, unwrap

__version__ = "0.1.0"

__all__ = [
    "Block",
    "Cell",
    "CellSpec",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Plan",
    "PlanError",
    "RLAConfig",
    "RLAError",
    "RLAModel",
    "RLAWarning",
    "Stage",
    "TraceError",
    "TrainError",
    "apply",
    "disabled",
    "inspect",
    "models",
    "register_cell",
    "rla_state_dict",
    "unwrap",
    "variant",
]
