"""rlawrap: a recurrent memory along the depth of any convolutional network."""

from __future__ import annotations

from rlawrap import models
from rlawrap.attention import attend
from rlawrap.cells import Cell, CellSpec, register_cell
from rlawrap.checkpoints import load, save
from rlawrap.config import RLAConfig, variant
from rlawrap.cost import Cost, cost
from rlawrap.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    PlanError,
    RLAError,
    RLAWarning,
    TraceError,
    TrainError,
)
from rlawrap.official import load_official, official_state_dict
from rlawrap.plan import Block, Plan, Plans, Stage
from rlawrap.splice import (
    RLAModel,
    apply,
    backbone,
    disabled,
    initialize,
    inspect,
    rla_state_dict,
    unwrap,
)

__version__ = "0.1.0"

__all__ = [
    "Block",
    "Cell",
    "CellSpec",
    "CheckpointError",
    "ConfigError",
    "Cost",
    "DataError",
    "Plan",
    "PlanError",
    "Plans",
    "RLAConfig",
    "RLAError",
    "RLAModel",
    "RLAWarning",
    "Stage",
    "TraceError",
    "TrainError",
    "apply",
    "attend",
    "backbone",
    "cost",
    "disabled",
    "initialize",
    "inspect",
    "load",
    "load_official",
    "models",
    "official_state_dict",
    "register_cell",
    "rla_state_dict",
    "save",
    "unwrap",
    "variant",
]
