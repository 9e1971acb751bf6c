"""rlawrap: a recurrent memory along the depth of any convolutional network."""

from __future__ import annotations

from rlawrap import models
from rlawrap.attention import attend
from rlawrap.cells import Cell, CellSpec, register_cell
from rlawrap.checkpoints import load, save
from rlawrap.config import RLAConfig, variant
from rlawrap.cost import Cost, cost
from rlawrap.deploy import Exported, export
from rlawrap.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ExportError,
    PlanError,
    RLAError,
    RLAWarning,
    TraceError,
    TrainError,
)
from rlawrap.fuse import FuseReport, fuse
from rlawrap.official import load_official, official_state_dict
from rlawrap.parameters import named_rla_parameters, param_groups, rla_parameters
from rlawrap.plan import Block, Plan, Plans, Stage
from rlawrap.show import Picture, show
from rlawrap.splice import (
    RLAModel,
    apply,
    backbone,
    disabled,
    freeze_base,
    initialize,
    inspect,
    rla_state_dict,
    unfreeze_base,
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
    "ExportError",
    "Exported",
    "FuseReport",
    "Picture",
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
    "export",
    "freeze_base",
    "fuse",
    "initialize",
    "inspect",
    "load",
    "load_official",
    "models",
    "named_rla_parameters",
    "official_state_dict",
    "param_groups",
    "register_cell",
    "rla_parameters",
    "rla_state_dict",
    "save",
    "show",
    "unfreeze_base",
    "unwrap",
    "variant",
]
