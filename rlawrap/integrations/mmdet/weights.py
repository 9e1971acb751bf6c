"""Weights of any of the known origins into a backbone: official, ours, or a base's without h."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlawrap.design.names import is_added
from rlawrap.errors import CheckpointError, RLAWarning
from rlawrap.official.convert import official_pieces
from rlawrap.weights import fit_names, misfit

_OFFICIAL_BLOCK = re.compile(r"(^|\.)stages\.\d+\.\d+\.")


@dataclass(frozen=True)
class Origin:
    """The network that a backbone was cut from: its keys."""

    keys: frozenset[str]
    #: Whether the official code has such networks.
    official: bool = False


def load_pretrained(net: nn.Module, state: Mapping[str, Any], where: str, origin: Origin) -> None:
    """Load a state dict into a backbone, in place, by what its names say it is.

    The official code's, a classifier's or a detector's; one of rlawrap's, of a network, backbone or
    detector; or one of the base alone, after which h starts as it was built. Raises
    `CheckpointError` for what does not fit, with every tensor, and leaves the backbone as it was.
    """
    if origin.official and any(_OFFICIAL_BLOCK.search(key) for key in state):
        state = official_pieces(net, state, where)
    own = net.state_dict()
    fitted = fit_names(state, list(own), where)
    given = {name: value for name, value in fitted.items() if name in own}
    has_h = any(map(is_added, given))
    problems = [
        f"missing: {name} {list(value.shape)}"
        for name, value in own.items()
        if name not in given and (has_h or not is_added(name)) and not _counts(name)
    ]
    problems += [
        problem
        for name in given
        if (problem := misfit(name, given[name], own[name].shape, "the backbone"))
    ]
    # A deeper network of the same names would fit but for what is left over.
    children = {name for name, _ in net.named_children()}
    problems += [
        f"unexpected: {name}"
        for name in fitted
        if name not in origin.keys and name.partition(".")[0] in children
    ]
    if problems:
        raise CheckpointError(_told(where, net, problems))
    if not has_h:
        _warn_of_random_h(net, where)
    with torch.no_grad():
        for name, value in given.items():
            own[name].copy_(value)


def _counts(name: str) -> bool:
    """Whether it is a batch norm's count of batches, which old files do not have."""
    return name.endswith(".num_batches_tracked")


def _told(where: str, net: nn.Module, problems: list[str]) -> str:
    listed = "\n  ".join(problems)
    return (
        f"{where} does not fit the backbone {type(net).__name__}, in {len(problems)} places:\n"
        f"  {listed}"
    )


def _warn_of_random_h(net: Any, where: str) -> None:
    if net.rla.splice.config.init == "identity":
        return
    warnings.warn(
        f"{where} has no hidden state, and with init='paper' a random one changes what its "
        "network computes, in frozen stages for good: `rla=dict(init='identity')` starts with "
        "what it computes.",
        RLAWarning,
        stacklevel=2,
    )
