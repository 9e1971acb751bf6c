"""`inspect`: the plan of the rewrite, found without touching the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, overload

from torch import nn

from rlawrap.discover.blocks import BlockChoice
from rlawrap.discover.stages import StageChoice
from rlawrap.plan import Plan, Plans
from rlawrap.splice.at import At
from rlawrap.splice.rewriting import find_plan
from rlawrap.splice.within import inspect_within


@overload
def inspect(
    model: nn.Module,
    *,
    at: None = None,
    blocks: BlockChoice | None = None,
    stages: StageChoice | None = None,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
    explain: bool = False,
) -> Plan: ...


@overload
def inspect(
    model: nn.Module,
    *,
    at: At,
    blocks: BlockChoice | Mapping[str, BlockChoice] | None = None,
    stages: StageChoice | Mapping[str, StageChoice] | None = None,
    leaf_modules: Iterable[type | str] | Mapping[str, Iterable[type | str]] = (),
    example_input: Any = None,
    explain: bool = False,
) -> Any: ...


def inspect(
    model: nn.Module,
    *,
    at: At | None = None,
    blocks: Any = None,
    stages: Any = None,
    leaf_modules: Any = (),
    example_input: Any = None,
    explain: bool = False,
) -> Plan | Plans:
    """The plan of `rlawrap.apply`: stages, blocks, where h enters and what it is updated from.

    `blocks` chooses the block modules by hand (a class, a tuple of classes, a list of paths, a
    glob, or a function of path and module), `stages` groups them (block counts, or a glob for each
    stage), `leaf_modules` (classes or paths) are not traced into, `example_input` is a tensor, a
    tuple or a dict by argument name that the network accepts. `explain` prints every candidate for
    a block with what is known of it and what became of it, and why. `at` names modules to look at
    alone, as in `apply`: the plan of one path, of a list or a glob `Plans`, a dict by path. Nothing
    is computed and `model` is left as it is. Raises `PlanError` and `TraceError`.

    >>> import rlawrap, torchvision
    >>> plan = rlawrap.inspect(torchvision.models.resnet18(weights=None))
    >>> [len(stage.blocks) for stage in plan.stages], plan.blocks[0].entries
    ([2, 2, 2, 2], ('layer1.0.conv1',))
    """
    if at is not None:
        asked = {
            "blocks": blocks,
            "stages": stages,
            "leaf_modules": leaf_modules,
            "example_input": example_input,
        }
        return inspect_within(model, at, asked, explain=explain)
    return find_plan(
        model,
        blocks=blocks,
        stages=stages,
        leaf_modules=leaf_modules,
        example_input=example_input,
        explain=explain,
    )
