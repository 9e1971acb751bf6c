"""Run folders in the form that the trainer writes, without training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlawrap.train.config.train_config import TrainConfig

STEPS = 10


def write_run(
    path: Path,
    top1: Sequence[float],
    *,
    ema: bool = False,
    state: str = "finished",
    **config: Any,
) -> Path:
    """A run of as many epochs as there are accuracies, two lines of training metrics in each."""
    path.mkdir(parents=True)
    settings = TrainConfig(**{"epochs": max(1, len(top1)), "arch": "cifar_resnet20", **config})
    (path / "config.json").write_text(json.dumps(settings.to_dict()))
    (path / "status.json").write_text(json.dumps({"state": state}))
    lines: list[dict[str, Any]] = []
    for epoch, accuracy in enumerate(top1):
        for step in (STEPS // 2, STEPS):
            line = {"kind": "train", "epoch": epoch, "step": step, "loss": 2.0 - 0.1 * epoch}
            line |= {"global_step": STEPS * epoch + step, "lr": 0.1 / (epoch + 1), "top1": accuracy}
            lines.append(line | {"images": 320, "seconds": 2.0, "images_per_s": 160.0})
        line = {"kind": "eval", "epoch": epoch, "global_step": STEPS * (epoch + 1), "lr": 0.01}
        line |= {"top1": accuracy, "top5": accuracy + 10, "loss": 3.0 - accuracy / 50}
        if ema:
            line |= {"ema_top1": accuracy + 1, "ema_top5": accuracy + 11, "ema_loss": 1.0}
        lines.append(line)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
