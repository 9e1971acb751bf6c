"""A run's network in a word."""

from __future__ import annotations

from typing import Any


def network_of(config: dict[str, Any]) -> str:
    """The network of a run in a word, with the arguments of its builder."""
    arguments = ", ".join(f"{name}={value}" for name, value in config["model_kwargs"].items())
    return f"{config['arch']}({arguments})" if arguments else str(config["arch"])
