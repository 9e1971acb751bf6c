"""(model, Plan, RLAConfig) -> RLAModel: the `torch.fx` rewrite."""

from __future__ import annotations

from rlawrap.splice.access import disabled, rla_state_dict, unwrap
from rlawrap.splice.apply import apply
from rlawrap.splice.backbone import backbone
from rlawrap.splice.model import RLAModel
from rlawrap.splice.resolve import RLAWarning

__all__ = ["RLAModel", "RLAWarning", "apply", "backbone", "disabled", "rla_state_dict", "unwrap"]
