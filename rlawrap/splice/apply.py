"""`apply`: (model, Plan, RLAConfig) -> RLAModel, the public rewrite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, overload

import torch
from torch import nn

from rlawrap.config import RLAConfig
from rlawrap.copying import deep_copy
from rlawrap.discover.blocks import BlockChoice
from rlawrap.discover.stages import StageChoice
from rlawrap.errors import ConfigError
from rlawrap.plan import Plan
from rlawrap.splice.at import At
from rlawrap.splice.model import RLAModel
from rlawrap.splice.rewriting import Request, prepare, rewrite
from rlawrap.splice.within import apply_within


@overload
def apply(
    model: nn.Module,
    k: int | None = None,
    *,
    at: None = None,
    config: RLAConfig | None = None,
    plan: Plan | None = None,
    blocks: BlockChoice | None = None,
    stages: StageChoice | None = None,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
    **options: Any,
) -> RLAModel: ...


@overload
def apply(
    model: nn.Module,
    k: int | None = None,
    *,
    at: At,
    config: RLAConfig | None = None,
    plan: Plan | Mapping[str, Plan] | None = None,
    blocks: BlockChoice | Mapping[str, BlockChoice] | None = None,
    stages: StageChoice | Mapping[str, StageChoice] | None = None,
    leaf_modules: Iterable[type | str] | Mapping[str, Iterable[type | str]] = (),
    example_input: Any = None,
    **options: Any,
) -> nn.Module: ...


def apply(
    model: nn.Module,
    k: int | None = None,
    *,
    at: At | None = None,
    config: RLAConfig | None = None,
    plan: Any = None,
    blocks: Any = None,
    stages: Any = None,
    leaf_modules: Any = (),
    example_input: Any = None,
    **options: Any,
) -> nn.Module:
    """A copy of `model` with a hidden state of k channels along its depth; `model` is untouched.

    `k` (32 by default) and `options` are fields of `RLAConfig`; they change `config` if both are
    given. `plan` is one from `rlawrap.inspect` or written by hand; else one is found, steered by
    `blocks`, `stages`, `leaf_modules` and `example_input` as in `inspect`. With the default
    `init="identity"` the result computes what `model` does until it is trained. All new parameters
    and buffers are named `rla.…`; the base's keep their keys and shapes. The global random state
    is left alone, and new weights follow it: `torch.manual_seed` before makes them repeatable.

    `at` names modules of `model` by path, by a list of paths or by a glob ("towers.*"). The copy is
    then of the whole model, of its own class, and each module named is rewritten in it alone. All
    other options are those of the named modules; of several, `plan`, `blocks`, `stages`,
    `leaf_modules` and `example_input` may be given by path.

    Raises `ConfigError` for an option, `PlanError` for a model, plan or block choice that cannot be
    rewritten, `TraceError` where `torch.fx` cannot follow the forward.

    >>> import torch, rlawrap, torchvision
    >>> base = torchvision.models.resnet18(weights=None).eval()
    >>> model = rlawrap.apply(base, k=8)
    >>> x = torch.randn(1, 3, 64, 64)
    >>> torch.equal(base(x), model(x))
    True
    """
    if config is not None and not isinstance(config, RLAConfig):
        raise ConfigError(_no_config(config))
    settled = (config or RLAConfig()).with_options(**options)
    if k is not None:
        settled = settled.with_options(k=k)
    asked = {
        "plan": plan,
        "blocks": blocks,
        "stages": stages,
        "leaf_modules": leaf_modules,
        "example_input": example_input,
    }
    if at is not None:
        return apply_within(model, at, settled, asked)
    prepared = prepare(model, Request(config=settled, **asked))
    with torch.random.fork_rng(devices=[]):
        return rewrite(deep_copy(model), prepared)


def _no_config(config: Any) -> str:
    """What is no configuration, and how one is made of it."""
    told = ""
    if isinstance(config, str):
        told = "; of an official variant, `config=rlawrap.variant(config)`"
    elif isinstance(config, Mapping):
        versioned = "version" in config
        code = "RLAConfig.from_dict(config)" if versioned else "RLAConfig(**config)"
        told = f"; of a dict, `config=rlawrap.{code}`"
    return f"apply: config= takes an RLAConfig, got {type(config).__name__}{told}."
