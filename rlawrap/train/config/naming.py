"""A run's network in a word, and what the name of a figure says."""

from __future__ import annotations

from typing import Any


def network_of(config: dict[str, Any]) -> str:
    """The network of a run in a word, with the arguments of its builder and of apply.

    >>> network_of({"arch": "net.py:small", "model_kwargs": {"width": 8}, "rla": {"k": 4}})
    'net.py:small(width=8) with RLA(k=4)'
    """
    arguments = ", ".join(f"{name}={value}" for name, value in config["model_kwargs"].items())
    name = f"{config['arch']}({arguments})" if arguments else str(config["arch"])
    if config.get("rla") is not None:
        name += f" with RLA({', '.join(f'{n}={v}' for n, v in config['rla'].items())})"
    if config.get("head") is None:
        return name
    arguments = ", ".join(f"{name}={value}" for name, value in config["head_args"].items())
    return f"{config['head']}{f'({arguments})' if arguments else ''} on {name}"


def smaller_is_better(figure: str) -> bool:
    """Whether the smaller of two figures of that name is the better one: losses and errors.

    >>> smaller_is_better("ema_loss"), smaller_is_better("mean_error"), smaller_is_better("top1")
    (True, True, False)
    """
    return figure.endswith(("loss", "error"))
