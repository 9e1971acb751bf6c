"""Networks by name: the paper's models, CIFAR-style ResNets and their RLA forms.

Every registered name is a function here too: `rlawrap.models.rla_resnet50(num_classes=10)`.
"""

from __future__ import annotations

from rlawrap.models import cifar, presets, xception
from rlawrap.models.model_registry import Builder, builder, get_model, list_models, register_model

__all__ = ["cifar", "get_model", "list_models", "presets", "register_model", "xception"]


def __getattr__(name: str) -> Builder:
    found = builder(name)
    if found is None:
        raise AttributeError(f"module 'rlawrap.models' has no attribute {name!r}")
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, *list_models()])
