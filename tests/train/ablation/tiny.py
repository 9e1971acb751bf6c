"""A configuration to make grids of."""

from __future__ import annotations

from pathlib import Path

from rlawrap.train.config.train_config import TrainConfig


def tiny(output: Path, **changes: object) -> TrainConfig:
    """A run of a second or two."""
    values: dict[str, object] = {
        "arch": "cifar_resnet20",
        "model_kwargs": {"in_channels": 1},
        "image_size": 16,
        "subset": 64,
        "epochs": 1,
        "batch_size": 32,
        "workers": 0,
        "output": str(output),
    }
    return TrainConfig(**{**values, **changes})  # type: ignore[arg-type]
