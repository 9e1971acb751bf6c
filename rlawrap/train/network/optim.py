"""The optimiser of a run, its parameter groups, and its learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from rlawrap.errors import ConfigError
from rlawrap.parameters import Group, group_parameters
from rlawrap.train.config.train_config import TrainConfig
from rlawrap.train.network.optimizers import build_optimizer


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[Group]:
    """The trainable parameters in groups; `rla.` ones apart when `rla_lr` is not 1.

    With decay_filter="weights" what has one dimension or none (biases, the scale of a norm)
    does not decay.
    """
    return group_parameters(
        model,
        rla_scale=config.rla_lr,
        weight_decay=config.weight_decay,
        no_decay=config.decay_filter == "weights",
        layer_decay=config.layer_decay,
    )


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The config's optimiser over `parameter_groups`; each group keeps its `lr_scale` for `set_lr`.

    Raises `ConfigError` for a name or an argument that there is not, and for nothing to train.
    """
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ConfigError(f"{config.arch}: has no parameters to train. Give a network that has.")
    groups: list[dict[str, Any]] = [
        {
            "params": [parameters[name] for name in group.names],
            "weight_decay": group.weight_decay,
            "lr_scale": group.lr_scale,
        }
        for group in parameter_groups(model, config)
    ]
    return build_optimizer(groups, config)


def lacking_state(before: TrainConfig, now: TrainConfig, changes: Iterable[str]) -> str | None:
    """What to do where an optimiser with other arguments needs state that the one before has not.

    changes: fields that differ. Returns None where the state serves.
    """
    arguments = sorted({"momentum", "nesterov", "opt_args"} & set(changes))
    lacking = _missing_state(before, now) if arguments else None
    if lacking is None:
        return None
    values = "; ".join(f"{name}={getattr(now, name)!r}" for name in arguments)
    return (
        f"with {values} the optimiser {now.optimizer} needs state that the run has not kept "
        f"({lacking}). Leave out --change {', --change '.join(arguments)}, or start a new run from "
        "its weights with --finetune and another --output."
    )


def _missing_state(before: TrainConfig, now: TrainConfig) -> str | None:
    """What an optimiser with other arguments does not find in the state of the one before.

    Tried on a parameter of its own, as optimisers differ in what they start by themselves.

    >>> adam = TrainConfig(optimizer="adam")
    >>> _missing_state(adam, adam.replace(opt_args={"amsgrad": True}))
    "'max_exp_avg_sq'"
    >>> _missing_state(TrainConfig(momentum=0.0), TrainConfig(momentum=0.9)) is None
    True
    """
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)

    def made(config: TrainConfig) -> torch.optim.Optimizer:
        group = {"params": [parameter], "weight_decay": config.weight_decay, "lr_scale": 1.0}
        return build_optimizer([group], config)

    new = made(now)
    own = {name: value for name, value in new.param_groups[0].items() if name != "params"}
    try:
        old = made(before)
        old.step()
        new.load_state_dict(old.state_dict())
    except Exception:  # on another device, say: nothing is known
        return None
    new.param_groups[0].update(own)
    try:
        new.step()
    except Exception as error:
        return str(error)
    return None


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its learning rate, a multiple of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimiser step number `step`, counted from 0 over the whole run.

    Step, multistep and exponential schedules change between epochs, the cosine at every step.
    The warm-up rises linearly from `warmup_start` to the full rate, and multiplies the schedule.

    >>> config = TrainConfig(lr=0.1, schedule="step", step_epochs=30, epochs=90)
    >>> [round(learning_rate(config, step, steps_per_epoch=1), 6) for step in (0, 29, 30, 60)]
    [0.1, 0.1, 0.01, 0.001]
    """
    epoch = step // steps_per_epoch
    if config.schedule == "step":
        factor = config.gamma ** (epoch // config.step_epochs)
    elif config.schedule == "multistep":
        factor = config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    elif config.schedule == "exponential":
        factor = config.gamma**epoch
    elif config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch)))
    else:
        factor = 1.0
    warmup = config.warmup_steps or config.warmup_epochs * steps_per_epoch
    if step < warmup:
        factor *= config.warmup_start + (1 - config.warmup_start) * step / warmup
    return config.lr * factor
