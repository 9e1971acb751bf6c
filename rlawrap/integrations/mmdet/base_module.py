"""A backbone of ours as a module of mmengine's: `init_cfg` and `init_weights`."""

from __future__ import annotations

import copy
import types
from typing import Any

from mmengine.model import BaseModule, PretrainedInit, initialize
from torch import nn

from rlawrap.errors import ConfigError
from rlawrap.integrations.mmdet.fetching import fetch_state
from rlawrap.integrations.mmdet.weights import Origin, load_pretrained


class DetectorBackbone(BaseModule):
    """What mmengine asks of a module; a mixin of a backbone's class, below `as_base_module`."""

    origin: Origin
    is_init: bool

    def init_weights(self) -> None:
        """Do what `init_cfg` says, once. Raises `CheckpointError` for weights that do not fit.

        The layers' own `init_weights`, which timm's have, are not called: they would undo
        pretrained weights.
        """
        if self.is_init:
            return
        listed = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg]
        entries = [entry for entry in listed if entry]
        pretrained = [e for e in entries if e.get("type") in ("Pretrained", PretrainedInit)]
        # As mmengine does: a checkpoint comes last, over all other initialisation.
        initialize(self, [e for e in entries if e not in pretrained])
        for entry in pretrained:
            _load(self, entry)
        self.is_init = True


def as_base_module(net: nn.Module, init_cfg: Any, origin: Origin) -> nn.Module:
    """Give a backbone mmengine's interface, in place; keys, class and forward stay as they are."""
    ours = type(net)
    body = {"__module__": ours.__module__, "__doc__": ours.__doc__}
    net.__class__ = types.new_class(
        ours.__name__, (DetectorBackbone, ours), exec_body=lambda space: space.update(body)
    )
    made: Any = net
    made.is_init = False
    made.init_cfg = copy.deepcopy(init_cfg)
    made.origin = origin
    return net


def _load(net: DetectorBackbone, entry: dict[str, Any]) -> None:
    checkpoint = entry.get("checkpoint")
    unknown = set(entry) - {"type", "checkpoint", "prefix", "map_location"}
    if not isinstance(checkpoint, str) or unknown:
        raise ConfigError(
            f"init_cfg={dict(entry)!r}: write `dict(type='Pretrained', checkpoint=FILE)`; it takes "
            "a prefix as well."
        )
    state = fetch_state(checkpoint)
    prefix = entry.get("prefix")
    if prefix:
        start = f"{prefix.rstrip('.')}."
        state = {key.removeprefix(start): v for key, v in state.items() if key.startswith(start)}
    load_pretrained(net, state, checkpoint, net.origin)
