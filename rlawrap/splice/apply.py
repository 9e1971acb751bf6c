"""`apply`: (model, Plan, RLAConfig) -> RLAModel, the public rewrite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rlawrap.capture.bound import Functions, bind, bound_methods, put_into_class
from rlawrap.capture.leaves import as_leaves
from rlawrap.config import RLAConfig
from rlawrap.copying import deep_copy
from rlawrap.design import names
from rlawrap.design.design import Design
from rlawrap.design.heads import named_heads, with_named_heads
from rlawrap.design.resolve import resolve
from rlawrap.discover.blocks import BlockChoice
from rlawrap.discover.parts import trace_whole
from rlawrap.discover.planning import make_plan
from rlawrap.discover.stages import StageChoice
from rlawrap.errors import ConfigError, PlanError
from rlawrap.flow.traced import Traced
from rlawrap.plan import Plan
from rlawrap.splice.classes import dress
from rlawrap.splice.hidden import Hidden
from rlawrap.splice.model import RLAModel
from rlawrap.splice.record import Settings
from rlawrap.splice.splicing import hidden_part, write


def apply(
    model: nn.Module,
    k: int | None = None,
    *,
    config: RLAConfig | None = None,
    plan: Plan | None = None,
    blocks: BlockChoice | None = None,
    stages: StageChoice | None = None,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
    **options: Any,
) -> RLAModel:
    """A copy of `model` with a hidden state of k channels along its depth; `model` is untouched.

    `k` (32 by default) and `options` are fields of `RLAConfig`; they change `config` if both are
    given. `plan` is one from `rlawrap.inspect` or written by hand; else one is found, steered by
    `blocks`, `stages`, `leaf_modules` and `example_input` as in `inspect`. With the default
    `init="identity"` the result computes what `model` does until it is trained. All new parameters
    and buffers are named `rla.…`; the base's keep their keys and shapes. The global random state
    is left alone, and new weights follow it: `torch.manual_seed` before makes them repeatable.

    Raises `ConfigError` for an option, `PlanError` for a model, plan or block choice that cannot be
    rewritten, `TraceError` where `torch.fx` cannot follow the forward.

    >>> import torch, rlawrap, torchvision
    >>> base = torchvision.models.resnet18(weights=None).eval()
    >>> model = rlawrap.apply(base, k=8)
    >>> x = torch.randn(1, 3, 64, 64)
    >>> torch.equal(base(x), model(x))
    True
    """
    _check_types(config, plan)
    settled = (config or RLAConfig()).with_options(**options)
    if k is not None:
        settled = settled.with_options(k=k)
    if plan is not None and (blocks is not None or stages is not None):
        raise ConfigError(
            "apply: give plan= or blocks=/stages=, not both: `plan=None`, or "
            "`blocks=None, stages=None`."
        )
    leaves = as_leaves(leaf_modules)
    traced = trace_whole(
        model, leaf_modules=leaves, example_input=example_input, call="apply(model)"
    )
    if plan is None:
        plan = make_plan(traced, blocks=blocks, stages=stages)
    named = named_heads(settled)
    plan = with_named_heads(plan, named, model)
    design = resolve(traced, plan, settled)
    with torch.random.fork_rng(devices=[]):
        return _rewrite(model, traced, design, Settings(leaves, example_input, plan.head, named))


def _check_types(config: Any, plan: Any) -> None:
    """Raises `ConfigError` and `PlanError` for what is no configuration and no plan."""
    if config is not None and not isinstance(config, RLAConfig):
        told = ""
        if isinstance(config, str):
            told = "; of an official variant, `config=rlawrap.variant(config)`"
        elif isinstance(config, Mapping):
            versioned = "version" in config
            code = "RLAConfig.from_dict(config)" if versioned else "RLAConfig(**config)"
            told = f"; of a dict, `config=rlawrap.{code}`"
        raise ConfigError(f"apply: config= takes an RLAConfig, got {type(config).__name__}{told}.")
    if plan is not None and not isinstance(plan, Plan):
        told = "; of a dict, `plan=rlawrap.Plan.from_dict(plan)`" * isinstance(plan, Mapping)
        raise PlanError(f"apply: plan= takes a Plan, got {type(plan).__name__}{told}.")


def _rewrite(model: nn.Module, traced: Traced, design: Design, settings: Settings) -> RLAModel:
    base = deep_copy(model)
    put_into_class(base, bound_methods(model))
    rla = hidden_part(base, traced, design)
    cls = write(base, rla, traced, design, settings, RLAModel, rebuild)
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
    bound: Functions = MappingProxyType({}),
) -> RLAModel:
    """Unpickle: rewrite the base again after the same plan and put the saved layers in.

    bound: the base's methods that were bound to it.
    """
    bind(base, bound)
    model = apply(
        base,
        plan=plan,
        config=config,
        leaf_modules=settings.leaf_modules,
        example_input=settings.example_input,
    )
    model.rla.splice.settings = settings
    rla.splice = model.rla.splice
    model._modules[names.ROOT] = rla
    RLAModel.set_grad_checkpointing(model, checkpointing)
    return model
