"""Optimisers by name, their parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rlawrap.design.names import is_added
from rlawrap.errors import ConfigError
from rlawrap.train.config.train_config import TrainConfig

#: Everything that rlawrap adds to a network has names that start so.


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters, by name, that share a learning rate and a weight decay."""

    names: tuple[str, ...]
    lr_scale: float
    weight_decay: float


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[Group]:
    """The trainable parameters in groups; `rla.` ones apart when `rla_lr` is not 1.

    With decay_filter="weights" what has one dimension or none (biases, the scale of a norm)
    does not decay.
    """
    groups: dict[tuple[float, float], list[str]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = config.rla_lr if is_added(name) else 1.0
        decays = config.decay_filter == "all" or parameter.ndim > 1
        key = (scale, config.weight_decay if decays else 0.0)
        groups.setdefault(key, []).append(name)
    if not groups:
        raise ConfigError("freeze leaves no parameter to train. Freeze less.")
    return [
        Group(names=tuple(names), lr_scale=scale, weight_decay=decay)
        for (scale, decay), names in groups.items()
    ]


def sgd(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """SGD, with or without (Nesterov) momentum."""
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, foreach=True
    )


#: What `TrainConfig.optimizer` names. A new one is a function and a line here; it gets groups with
#: their own weight decay, and its learning rate is set at every step.
OPTIMIZERS: Mapping[str, Callable[[list[dict[str, Any]], TrainConfig], torch.optim.Optimizer]] = (
    MappingProxyType({"sgd": sgd})
)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The config's optimiser over `parameter_groups`; each group keeps its `lr_scale` for `set_lr`.

    Raises `ConfigError` for a name that `OPTIMIZERS` does not have.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ConfigError(f"optimizer={config.optimizer!r}: choose one of {', '.join(OPTIMIZERS)}.")
    parameters = dict(model.named_parameters())
    groups: list[dict[str, Any]] = [
        {
            "params": [parameters[name] for name in group.names],
            "weight_decay": group.weight_decay,
            "lr_scale": group.lr_scale,
        }
        for group in parameter_groups(model, config)
    ]
    return OPTIMIZERS[config.optimizer](groups, config)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its learning rate, a multiple of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimiser step number `step`, counted from 0 over the whole run.

    Step and exponential schedules change between epochs, the cosine at every step. The warm-up
    rises linearly from `warmup_start` to the full rate, and multiplies the schedule.

    >>> config = TrainConfig(lr=0.1, schedule="step", step_epochs=30, epochs=90)
    >>> [round(learning_rate(config, step, steps_per_epoch=1), 6) for step in (0, 29, 30, 60)]
    [0.1, 0.1, 0.01, 0.001]
    """
    epoch = step // steps_per_epoch
    if config.schedule == "step":
        factor = config.gamma ** (epoch // config.step_epochs)
    elif config.schedule == "exponential":
        factor = config.gamma**epoch
    elif config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch)))
    else:
        factor = 1.0
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        factor *= config.warmup_start + (1 - config.warmup_start) * step / warmup
    return config.lr * factor
