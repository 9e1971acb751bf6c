"""The names that an RLAModel needs at its root, and what of a base's names it cannot live with.

A rewritten network is an `fx.GraphModule`, so the base's children, parameters and buffers stand
beside the attributes of three classes. Those that only users read give way to the base's own; a
base with one of the others is refused before anything is done.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import fx, nn

from rlawrap.errors import PlanError
from rlawrap.splice.backbone import Backbone
from rlawrap.splice.hidden import Hidden
from rlawrap.splice.model import RLAModel

#: What gives way: the values that `model.rla` holds as well, and what GraphModule shows and neither
#: it nor this package reads by these names. `meta` cannot: torch.compile reads it.
_GIVE_WAY = frozenset({*Backbone._shown, "graph", "code", "rla"})


def refuse_names(model: Any, call: str) -> None:
    """Raise `PlanError` if a child, parameter or buffer of `model` has a name that is needed."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        return  # refused in other words
    tables = {"child": "_modules", "parameter": "_parameters", "buffer": "_buffers"}
    for kind, table in tables.items():
        for name in getattr(model, table):
            if name in _needed():
                raise PlanError(
                    f"{call}: the model has a {kind} {name!r}, and the rewritten network, an "
                    "fx.GraphModule, needs that name itself. Rename it, or put the model one level "
                    "down: rlawrap.apply(torch.nn.Sequential(model))."
                )


@functools.cache
def _needed() -> frozenset[str]:
    """Every attribute of the classes and of an instance, asked for and not listed: torch's differ
    from release to release."""
    graph = fx.Graph()
    graph.output(None)
    empty: Any = None
    probe = RLAModel(nn.Module(), Hidden(), graph, None, plan=empty, config=empty)
    return frozenset({*dir(Backbone), *dir(type(probe)), *vars(probe)}) - _GIVE_WAY
