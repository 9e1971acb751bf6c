"""Networks by name: the paper's models, CIFAR-style ResNets and their RLA forms."""

from __future__ import annotations

from rlawrap.models import cifar
from rlawrap.models.registry import get_model, list_models, register_model

__all__ = ["cifar", "get_model", "list_models", "register_model"]
