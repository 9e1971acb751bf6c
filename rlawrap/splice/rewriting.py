"""The rewrite of one network in two steps: all of it is prepared, then it is written in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rlawrap.capture.bound import Functions, bind, bound_methods, put_into_class
from rlawrap.capture.leaves import as_leaves
from rlawrap.config import RLAConfig
from rlawrap.design import names
from rlawrap.design.design import Design
from rlawrap.design.heads import named_heads, with_named_heads
from rlawrap.design.living import unreached
from rlawrap.design.resolve import resolve
from rlawrap.discover.blocks import BlockChoice
from rlawrap.discover.parts import trace_whole
from rlawrap.discover.planning import make_plan
from rlawrap.discover.stages import StageChoice
from rlawrap.errors import ConfigError, PlanError
from rlawrap.flow.traced import Traced
from rlawrap.plan import Plan
from rlawrap.splice.classes import dress
from rlawrap.splice.frozen import Frozen
from rlawrap.splice.hidden import Hidden
from rlawrap.splice.model import RLAModel
from rlawrap.splice.record import Settings
from rlawrap.splice.splicing import hidden_part, write


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of one network, as `apply` takes it."""

    config: RLAConfig
    plan: Plan | None = None
    blocks: BlockChoice | None = None
    stages: StageChoice | None = None
    leaf_modules: Iterable[type | str] = ()
    example_input: Any = None

    def __post_init__(self) -> None:
        """Raises `PlanError` for what is no plan, `ConfigError` for two of them."""
        plan: Any = self.plan
        if plan is not None and not isinstance(plan, Plan):
            told = "; of a dict, `plan=rlawrap.Plan.from_dict(plan)`" * isinstance(plan, Mapping)
            raise PlanError(f"apply: plan= takes a Plan, got {type(plan).__name__}{told}.")
        if plan is not None and (self.blocks is not None or self.stages is not None):
            raise ConfigError(
                "apply: give plan= or blocks=/stages=, not both: `plan=None`, or "
                "`blocks=None, stages=None`."
            )


@dataclass(frozen=True)
class Prepared:
    """All that the rewrite of a network needs, found without touching it."""

    traced: Traced
    design: Design
    settings: Settings


def find_plan(
    model: nn.Module,
    *,
    blocks: BlockChoice | None = None,
    stages: StageChoice | None = None,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
    explain: bool = False,
) -> Plan:
    """The plan of one network, as `inspect` gives it."""
    traced = trace_whole(model, leaf_modules=leaf_modules, example_input=example_input)
    plan = make_plan(traced, blocks=blocks, stages=stages, explain=explain)
    notes = dict.fromkeys((*plan.notes, *unreached(traced, plan)))
    return replace(plan, notes=tuple(notes))


def prepare(model: nn.Module, request: Request, call: str = "apply(model)") -> Prepared:
    """Trace a network, plan its rewrite and design it; `call` is the user's, for messages."""
    leaves, example = as_leaves(request.leaf_modules), request.example_input
    traced = trace_whole(model, leaf_modules=leaves, example_input=example, call=call)
    plan = request.plan
    if plan is None:
        plan = make_plan(traced, blocks=request.blocks, stages=request.stages)
    named = named_heads(request.config)
    plan = with_named_heads(plan, named, model)
    design = resolve(traced, plan, request.config)
    return Prepared(traced, design, Settings(leaves, example, plan.head, named))


def rewrite(base: nn.Module, prepared: Prepared) -> RLAModel:
    """Make `base`, the prepared network or a copy of it, into a rewritten one, in place.

    New weights are drawn from the global random state.
    """
    traced, design = prepared.traced, prepared.design
    put_into_class(base, bound_methods(base))
    rla = hidden_part(base, traced, design)
    cls = write(base, rla, traced, design, prepared.settings, RLAModel, rebuild)
    made: RLAModel = dress(base, rla, cls)
    # Tracing dissolves the checkpoints that a base makes in its own forward.
    if any(getattr(m, "grad_checkpointing", False) is True for m in base.modules()):
        RLAModel.set_grad_checkpointing(made)
    return made


def rebuild(
    base: nn.Module,
    rla: Hidden,
    plan: Plan,
    config: RLAConfig,
    settings: Settings,
    checkpointing: bool,
    frozen: Frozen | None = None,
    bound: Functions = MappingProxyType({}),
) -> RLAModel:
    """Unpickle: rewrite the base after the same plan, in place, and put the saved layers in.

    bound: the base's methods that were bound to it.
    """
    bind(base, bound)
    request = Request(
        config=config,
        plan=plan,
        leaf_modules=settings.leaf_modules,
        example_input=settings.example_input,
    )
    with torch.random.fork_rng(devices=[]):
        model = rewrite(base, prepare(base, request))
    model.rla.splice.settings = settings
    model.rla.splice.frozen = frozen
    rla.splice = model.rla.splice
    model._modules[names.ROOT] = rla
    RLAModel.set_grad_checkpointing(model, checkpointing)
    return model
