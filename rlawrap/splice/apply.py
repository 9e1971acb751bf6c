"""`apply`: (model, Plan, RLAConfig) -> RLAModel, the public rewrite."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rlawrap.capture.leaves import as_leaves
from rlawrap.capture.trace import Trace
from rlawrap.config import RLAConfig
from rlawrap.design.resolve import Design, resolve
from rlawrap.discover.blocks import BlockChoice
from rlawrap.discover.inspect import make_plan
from rlawrap.discover.stages import StageChoice
from rlawrap.errors import ConfigError, PlanError
from rlawrap.flow.traced import Traced, trace_model
from rlawrap.plan import Plan
from rlawrap.splice.edit import GraphEditor
from rlawrap.splice.hidden import build, initialise
from rlawrap.splice.model import RLAModel
from rlawrap.splice.names import refuse_names


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
    if config is not None and not isinstance(config, RLAConfig):
        raise ConfigError(
            f"apply: config= takes an RLAConfig, got {type(config).__name__}; "
            "RLAConfig.from_dict reads a dict, rlawrap.variant a name."
        )
    if plan is not None and not isinstance(plan, Plan):
        raise PlanError(
            f"apply: plan= takes a Plan, got {type(plan).__name__}; Plan.from_dict reads a dict."
        )
    settled = (config or RLAConfig()).with_options(**options)
    if k is not None:
        settled = settled.with_options(k=k)
    if plan is not None and (blocks is not None or stages is not None):
        raise ConfigError("apply: give plan= or blocks=/stages=, not both.")
    leaves = as_leaves(leaf_modules)
    refuse_names(model, "apply(model)")
    traced = trace_model(
        model, leaf_modules=leaves, example_input=example_input, call="apply(model)"
    )
    if plan is None:
        plan = make_plan(traced, blocks=blocks, stages=stages)
    design = resolve(traced, plan, settled)
    settings = {"leaf_modules": leaves, "example_input": example_input}
    with torch.random.fork_rng(devices=[]):
        return splice(model, traced, design, settings)


def splice(model: nn.Module, traced: Traced, design: Design, settings: dict[str, Any]) -> RLAModel:
    """Build the layers of a design and write them into the traced graphs, on a copy of `model`."""
    base = copy.deepcopy(model)
    rla = build(design)
    initialise(rla, design, _classifier_widths(base, design))
    _like(base, rla)
    rla.train(base.training)
    root = nn.Module()
    root.__dict__["_modules"] = {**base._modules, "rla": rla}
    root.__dict__["_parameters"] = base._parameters
    root.__dict__["_buffers"] = base._buffers
    turned: list[str] = []
    graphs = []
    traces = [traced.trace] if traced.training is None else [traced.trace, traced.training.trace]
    for trace in traces:
        editor = GraphEditor(design, trace, root)
        editor.run()
        turned += editor.turned
        graphs.append(_portable(trace))
        _keep_constants(base, trace)
    plan = replace(design.plan, notes=tuple(dict.fromkeys((*design.plan.notes, *design.notes))))
    spliced = RLAModel(
        base,
        rla,
        graphs[0],
        graphs[1] if len(graphs) > 1 else None,
        plan=plan,
        config=design.config,
        turned=tuple(dict.fromkeys(turned)),
        settings=settings,
        modes={trace.training: trace.modes for trace in traces} if len(traces) > 1 else {},
    )
    # Tracing dissolves the checkpoints that a base makes in its own forward.
    if any(getattr(m, "grad_checkpointing", False) is True for m in base.modules()):
        spliced.set_grad_checkpointing()
    return spliced


def _portable(trace: Trace) -> Any:
    """The graph without the tracer it came from and the shadow's values in its metadata."""
    graph = trace.graph
    graph._tracer_cls = None  # type: ignore[assignment]
    graph._tracer_extras = None  # type: ignore[assignment]
    for node in graph.nodes:
        node.meta.clear()
    return graph


def _keep_constants(base: nn.Module, trace: Trace) -> None:
    """Tensors that forward made while tracing become buffers that no state dict carries."""
    for name, value in trace.constants.items():
        if hasattr(base, name):
            raise PlanError(f"the network has an attribute {name!r} that tracing needs; rename it.")
        base.register_buffer(name, value.clone(), persistent=False)


def _like(base: nn.Module, rla: nn.Module) -> None:
    """Give the new layers the device and dtype of the base."""
    tensors = [*base.parameters(), *base.buffers()]
    floating = [t for t in tensors if t.is_floating_point()]
    if floating:
        rla.to(device=floating[0].device, dtype=floating[0].dtype)


def _classifier_widths(base: nn.Module, design: Design) -> dict[str, int]:
    widths = {}
    for entry in design.head:
        try:
            layer = base.get_submodule(entry.target.partition("#")[0])
        except AttributeError:
            continue
        if isinstance(layer, nn.Linear):
            widths[entry.target] = layer.in_features
    return widths
