"""`inspect`: the plan of the rewrite, found without touching the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from rlawrap.design.living import unreached
from rlawrap.discover.blocks import BlockChoice
from rlawrap.discover.parts import trace_whole
from rlawrap.discover.planning import make_plan
from rlawrap.discover.stages import StageChoice
from rlawrap.plan import Plan


def inspect(
    model: nn.Module,
    *,
    blocks: BlockChoice | None = None,
    stages: StageChoice | None = None,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
    explain: bool = False,
) -> Plan:
    """The plan of `rlawrap.apply`: stages, blocks, where h enters and what it is updated from.

    `blocks` chooses the block modules by hand (a class, a tuple of classes, a list of paths, a
    glob, or a function of path and module), `stages` groups them (block counts, or a glob for each
    stage), `leaf_modules` (classes or paths) are not traced into, `example_input` is a tensor, a
    tuple or a dict by argument name that the network accepts. `explain` prints every candidate for
    a block with what is known of it and what became of it, and why. Nothing is computed and `model`
    is left as it is. Raises `PlanError` and `TraceError`.

    >>> import rlawrap, torchvision
    >>> plan = rlawrap.inspect(torchvision.models.resnet18(weights=None))
    >>> [len(stage.blocks) for stage in plan.stages], plan.blocks[0].entries
    ([2, 2, 2, 2], ('layer1.0.conv1',))
    """
    traced = trace_whole(model, leaf_modules=leaf_modules, example_input=example_input)
    plan = make_plan(traced, blocks=blocks, stages=stages, explain=explain)
    notes = dict.fromkeys((*plan.notes, *unreached(traced, plan)))
    return replace(plan, notes=tuple(notes))
