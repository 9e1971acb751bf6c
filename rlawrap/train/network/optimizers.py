"""Optimisers by name: those of torch.optim and, where timm is installed, those of timm.optim."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from rlawrap.errors import ConfigError
from rlawrap.train.config.train_config import TrainConfig

Factory = Callable[..., torch.optim.Optimizer]

#: Of torch.optim, but not for this loop, with why.
_UNFIT = {
    "lbfgs": "it evaluates the loss several times in a step",
    "sparseadam": "it takes sparse gradients, which convolutions do not have",
}
#: Arguments that have an option of their own.
_FIELDS = {
    name: "--" + name.replace("_", "-") for name in ("lr", "weight_decay", "momentum", "nesterov")
}


def torch_optimizers() -> dict[str, Factory]:
    """The optimisers of torch.optim that the trainer can use, by name in small letters.

    >>> sorted(torch_optimizers())[:4]
    ['adadelta', 'adafactor', 'adagrad', 'adam']
    """
    kinds = {name.lower(): kind for name, kind in vars(torch.optim).items() if _is_kind(kind)}
    return {name: kind for name, kind in kinds.items() if name not in _UNFIT}


def _is_kind(value: Any) -> bool:
    base = torch.optim.Optimizer
    return isinstance(value, type) and issubclass(value, base) and value is not base


def find_optimizer(name: str) -> Factory:
    """What builds the optimiser of that name: a class, or a function with the same arguments.

    "adamw", "AdamW" and "timm:lamb" are names; torch's come before timm's.
    Raises `ConfigError`, with near names, or with why an optimiser is of no use here.
    """
    source, _, short = name.rpartition(":")
    short = short.lower().replace("_", "")
    if source not in ("", "torch", "timm"):
        raise ConfigError(f"optimizer={name!r}: {source!r} is no source; write torch: or timm:.")
    own = torch_optimizers() if source != "timm" else {}
    if short in own:
        return own[short]
    # Only now: timm takes seconds to import.
    others = _timm_names() if source != "torch" else []
    if short in others:
        return _from_timm(short)
    if short in _UNFIT and source != "timm":
        raise ConfigError(f"optimizer={name!r}: not for this trainer, {_UNFIT[short]}.")
    near = difflib.get_close_matches(short, {*others, *own}, n=4) or sorted(torch_optimizers())
    hint = "" if others or _timm_names() else " More with timm: pip install 'rlawrap[timm]'."
    raise ConfigError(
        f"optimizer={name!r}: there is none of that name. Nearest: {', '.join(near)}.{hint}"
    )


def _timm_names() -> list[str]:
    try:
        from timm.optim import list_optimizers
    except ImportError:
        return []
    return [str(name) for name in list_optimizers()]


def _from_timm(name: str) -> Factory:
    from timm.optim import get_optimizer_class, get_optimizer_info

    if get_optimizer_info(name).second_order:
        raise ConfigError(f"optimizer={name!r}: not for this trainer, it takes second derivatives.")
    try:
        factory: Factory = get_optimizer_class(name)
    except (ImportError, AssertionError, RuntimeError) as error:  # bitsandbytes, without CUDA say
        raise ConfigError(
            f"optimizer={name!r}: cannot be used here: {error}. Take another, such as adamw."
        ) from error
    return factory


def choose_optimizer(config: TrainConfig) -> tuple[Factory, dict[str, Any]]:
    """What builds the config's optimiser, and its arguments besides groups and rate.

    Raises `ConfigError` for a name or an argument that there is not, with near names.
    """
    factory = find_optimizer(config.optimizer)
    takes = set(inspect.signature(factory).parameters) - {"params", "kwargs", "self"}
    return factory, {**_from_fields(config, takes), **_extra(config, takes)}


def build_optimizer(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """The config's optimiser over groups that have a weight decay each.

    `momentum` and `nesterov` go to the optimisers that take them, `opt_args` to all.
    Raises `ConfigError` as `choose_optimizer` does, and for values that the optimiser refuses.
    """
    factory, arguments = choose_optimizer(config)
    if factory is torch.optim.SGD:
        arguments.setdefault("foreach", True)
    try:
        return factory(groups, lr=config.lr, **arguments)
    except (TypeError, ValueError, RuntimeError, ImportError, AssertionError) as error:
        raise ConfigError(
            f"optimizer={config.optimizer!r}: cannot be built with {arguments}: {error}"
        ) from error


def _from_fields(config: TrainConfig, takes: set[str]) -> dict[str, Any]:
    """Momentum and its kind, and a refusal of what the optimiser would pass over in silence."""
    default = TrainConfig.model_fields
    values = {"momentum": config.momentum, "nesterov": config.nesterov}
    for name, value in {**values, "weight_decay": config.weight_decay}.items():
        unused = 0 if name == "weight_decay" else default[name].default
        if name not in takes and value != unused:
            raise ConfigError(
                f"{name}={value!r}: {config.optimizer} has no {name.replace('_', ' ')}. "
                f"It takes {_listing(takes)}, by --opt-arg."
                + (" Set --weight-decay 0." if name == "weight_decay" else "")
            )
    return {name: value for name, value in values.items() if name in takes}


def _extra(config: TrainConfig, takes: set[str]) -> Mapping[str, Any]:
    """`opt_args`, lists as the tuples that optimisers expect."""
    for name in config.opt_args:
        if name in _FIELDS:
            raise ConfigError(f"opt_args: {name} has an option of its own, {_FIELDS[name]}.")
        if name not in takes:
            near = difflib.get_close_matches(name, takes - set(_FIELDS), n=3)
            hint = f"Nearest: {', '.join(near)}." if near else f"It takes {_listing(takes)}."
            raise ConfigError(
                f"opt_args: {config.optimizer} takes no {name}={config.opt_args[name]!r}. {hint}"
            )
    return {n: tuple(v) if isinstance(v, list) else v for n, v in config.opt_args.items()}


def _listing(takes: set[str]) -> str:
    return ", ".join(sorted(takes - set(_FIELDS))) or "nothing"
