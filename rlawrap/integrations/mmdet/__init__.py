"""Backbones with a hidden state for MMDetection 3.x; importing this registers them.

In a configuration: `custom_imports = dict(imports="rlawrap.integrations.mmdet")`, then
`backbone=dict(type="RLAResNet", ...)` or `dict(type="RLABackbone", ...)`.
"""

from __future__ import annotations

from rlawrap.errors import RLAError

try:
    from mmdet.registry import MODELS
except ImportError as error:
    raise RLAError(
        f"rlawrap.integrations.mmdet needs MMDetection with mmcv ({error}): "
        "pip install 'rlawrap[mmdet]', and mmcv for your torch."
    ) from error

from rlawrap.integrations.mmdet.generic import RLABackbone
from rlawrap.integrations.mmdet.resnet import RLAResNet
from rlawrap.integrations.mmdet.resuming import allow_mmengine_checkpoints

__all__ = ["RLABackbone", "RLAResNet", "allow_mmengine_checkpoints"]

MODELS.register_module(name="RLAResNet", module=RLAResNet)
MODELS.register_module(name="RLABackbone", module=RLABackbone)
# mmengine's Runner reads its own files with torch.load, where a user has no say.
allow_mmengine_checkpoints()
