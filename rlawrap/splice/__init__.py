"""(model, Plan, RLAConfig) -> RLAModel: the `torch.fx` rewrite."""

from __future__ import annotations

from rlawrap.splice.access import disabled, rla_state_dict, unwrap
from rlawrap.splice.apply import apply
from rlawrap.splice.backbone import backbone
from rlawrap.splice.freezing import freeze_base, unfreeze_base
from rlawrap.splice.initializing import initialize
from rlawrap.splice.inspect import inspect
from rlawrap.splice.model import RLAModel

__all__ = [
    "RLAModel",
    "apply",
    "backbone",
    "disabled",
    "freeze_base",
    "initialize",
    "inspect",
    "rla_state_dict",
    "unfreeze_base",
    "unwrap",
]
