"""Layers of h in a network whose own layers lie on several devices, or are of several types."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import fx, nn

from rlawrap.capture.places import Places
from rlawrap.design.design import Design
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced


class _Place(NamedTuple):
    device: torch.device
    dtype: torch.dtype


def is_mixed(root: nn.Module, places: Places) -> bool:
    """Whether the parameters of a network lie on several devices or are of several types."""
    dtypes = {p.dtype for p in root.parameters() if p.is_floating_point()}
    return places.several or len(dtypes) > 1


def first_weight(module: nn.Module) -> str | None:
    """The name of the first parameter of a module, or None."""
    return next((name for name, p in module.named_parameters() if p.is_floating_point()), None)


def put_beside_base(rla: nn.Module, traced: Traced, design: Design) -> None:
    """Move each layer of h to where the base computes what it reads or adds to, in its type.

    What blocks share lies where the first of them is; h is brought there by the graph.
    """
    refs = References(traced.trace)

    def place(reference: str) -> _Place:
        return _place(traced, refs.node(reference))

    def put(part: str, key: str, where: _Place) -> None:
        layers = getattr(rla, part, {})
        if key in layers:
            layers[key].to(device=where.device, dtype=where.dtype)

    shared: dict[tuple[str, str], _Place] = {}
    for step in design.steps:
        for entry in step.entries:
            put("inject", entry.name, place(entry.target))
        if not step.updates:
            continue
        here = place(step.source)
        for part, key in (("input", step.input_key), ("cell", step.cell_key)):
            put(part, key, shared.setdefault((part, key), here))
        put("block", str(step.index), shared["cell", step.cell_key])
    if design.head:
        rla.get_submodule("head").to(*place(design.head[0].target))
        for entry in design.head:
            join = rla.get_submodule("head.join").get_submodule(entry.name)
            join.to(*place(entry.target))


def _place(traced: Traced, node: fx.Node) -> _Place:
    shadow, dtype = traced.trace.shadow, traced.flow.shapes.dtypes.get(node)
    floats = dtype is not None and dtype.is_floating_point
    return _Place(shadow.places.of(node), dtype if floats and dtype else shadow.dtype)
