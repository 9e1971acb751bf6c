"""Training recipes by name: values of `TrainConfig` that belong together."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rlawrap.errors import ConfigError
from rlawrap.train.config.augment import AugmentConfig, resize_at
from rlawrap.train.config.train_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe: where it comes from, and what it sets; all else keeps `TrainConfig`'s default."""

    name: str
    source: str
    values: Mapping[str, Any]

    def config(self, **changes: Any) -> TrainConfig:
        """The configuration, with changes of your own.

        At another `image_size` without an `augment` the images of evaluation are resized to the
        same multiple of it.

        >>> get_recipe("rla-imagenet-resnet").config(image_size=112).augment.resize
        128
        """
        known = TrainConfig().replace(**self.values)
        resize = scaled_resize(known, changes.get("image_size"))
        if resize is not None and known.augment is not None:
            changes = {"augment": known.augment.replace(resize=resize), **changes}
        return known.replace(**changes)


def scaled_resize(config: TrainConfig, size: int | None) -> int | None:
    """The resize of a configuration at another image size, the same multiple; None: no change."""
    resize = None if config.augment is None else config.augment.resize
    if size is None or resize is None or config.image_size is None:
        return None
    return resize_at(resize, config.image_size, size)


#: What the 1x schedule is for any detector; its learning rate is for Faster and Mask R-CNN.
_COCO_1X = {
    "epochs": 12,
    "batch_size": 16,
    "augment": AugmentConfig(flip=0.5),
    "lr": 0.02,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "decay_filter": "all",
    "schedule": "multistep",
    "milestones": (8, 11),
    "gamma": 0.1,
    "warmup_steps": 500,
    "warmup_start": 0.001,
}
_COCO_SOURCE = "the paper's schedule on COCO, as MMDetection's configurations have it"

_IMAGENET = AugmentConfig(crop="resized", scale=(0.08, 1.0), flip=0.5, resize=256)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="rla-imagenet-resnet",
                source="defaults of the official train.py: RLA-ResNet on ImageNet",
                values={
                    "arch": "rla_resnet50",
                    "image_size": 224,
                    "augment": _IMAGENET,
                    "epochs": 120,
                    "batch_size": 256,
                    "lr": 0.1,
                    "momentum": 0.9,
                    "weight_decay": 1e-4,
                    "decay_filter": "all",
                    "schedule": "step",
                    "step_epochs": 30,
                    "gamma": 0.1,
                },
            ),
            Recipe(
                name="rla-imagenet-mobilenet",
                source="defaults of the official train_light.py: RLA-MobileNetV2 on ImageNet",
                values={
                    "arch": "dsrla_mobilenetv2_k32",
                    "image_size": 224,
                    "augment": _IMAGENET,
                    "epochs": 400,
                    "batch_size": 96,
                    "lr": 0.045,
                    "momentum": 0.9,
                    "weight_decay": 4e-5,
                    "decay_filter": "all",
                    "schedule": "exponential",
                    "gamma": 0.98,
                },
            ),
            Recipe(
                name="convnext-imagenet",
                source="ConvNeXt-T on ImageNet-1K: Liu et al. 2022, table 5, and the official "
                "main.py; RandAugment is torchvision's, erasing is in black",
                values={
                    "arch": "timm:convnext_tiny",
                    "model_kwargs": {"drop_path_rate": 0.1},
                    "image_size": 224,
                    "augment": _IMAGENET.replace(
                        randaugment=2, magnitude=9, erase=0.25, mixup=0.8, cutmix=1.0
                    ),
                    "epochs": 300,
                    "batch_size": 4096,
                    "drop_last": True,
                    "optimizer": "adamw",
                    "lr": 4e-3,
                    "weight_decay": 0.05,
                    "decay_filter": "weights",
                    "label_smoothing": 0.1,
                    "schedule": "cosine",
                    "warmup_epochs": 20.0,
                    "warmup_start": 0.0,
                    "ema": 0.9999,
                },
            ),
            Recipe(
                name="coco-1x",
                source=f"{_COCO_SOURCE}: Faster R-CNN",
                values={**_COCO_1X, "task": "detection", "arch": "fasterrcnn_rla_resnet50_fpn"},
            ),
            Recipe(
                name="coco-1x-mask",
                source=f"{_COCO_SOURCE}: Mask R-CNN",
                values={**_COCO_1X, "task": "instance", "arch": "maskrcnn_rla_resnet50_fpn"},
            ),
            Recipe(
                name="coco-1x-retinanet",
                source=f"{_COCO_SOURCE}: RetinaNet",
                values={
                    **_COCO_1X,
                    "task": "detection",
                    "arch": "retinanet_rla_resnet50_fpn",
                    "lr": 0.01,
                },
            ),
            Recipe(
                name="rla-32",
                source="for 32x32 images; chosen for this library, no published recipe behind it",
                values={
                    "arch": "rla_cifar_resnet56",
                    "image_size": 32,
                    "augment": AugmentConfig(crop="padded", padding=4, flip=0.5),
                    "epochs": 160,
                    "batch_size": 128,
                    "lr": 0.1,
                    "momentum": 0.9,
                    "weight_decay": 1e-4,
                    "decay_filter": "all",
                    "schedule": "cosine",
                    "warmup_epochs": 1.0,
                },
            ),
        )
    }
)


def get_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises `ConfigError`, with the nearest names.

    >>> get_recipe("rla-imagenet-resnet").config(seed=3).lr
    0.1
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1) or list(RECIPES)
        raise ConfigError(f"recipe {name!r}: there is none. Nearest: {', '.join(near)}.")
    return RECIPES[name]
