"""`cost(model)`: count the calls, put them into parts, add the parameters."""

from __future__ import annotations

from typing import Any

from torch import nn

from rlawrap.capture.shadow import make_shadow
from rlawrap.cost.advice import advised, run
from rlawrap.cost.count import Call, skeleton_of, total_of
from rlawrap.cost.inputs import Example, InputError, Size
from rlawrap.cost.nodes import count_nodes
from rlawrap.cost.parts import (
    HEAD,
    STEM,
    UNUSED,
    assign_calls,
    assign_parameters,
    by_child,
    stage_name,
)
from rlawrap.cost.report import Cost, Count, PartCost
from rlawrap.cost.thop_count import count_with_thop, thop_available
from rlawrap.design import names
from rlawrap.design.names import is_added
from rlawrap.discover.planning import make_plan
from rlawrap.errors import PlanError, RLAError
from rlawrap.flow.traced import trace_model
from rlawrap.networks import build_network
from rlawrap.plan import Plan
from rlawrap.splice import RLAModel
from rlawrap.splice.access import unwrap
from rlawrap.splice.inside import added_in, rewritten_in


def cost(
    model: nn.Module | str,
    size: Size = None,
    *,
    in_channels: int | None = None,
    example_input: Any = None,
) -> Cost:
    """Exact parameter and operation counts of a network, per stage, base against RLA.

    `model` is any module, or a name: one of `rlawrap.models.list_models()`, or a torchvision or
    timm network ("torchvision:resnet50" where both know it). `size` is the side of the
    input, or one number per spatial axis; by default 224, or what the model's own
    `default_cfg` says (timm's networks and the CIFAR-style ones have it).
    The channels of the input are read off the first convolution unless `in_channels` is given.
    Where one image is not what the network takes, `example_input` is: a tensor, a tuple or a dict
    by argument name, counted as it is. A rewritten network remembers the one that it was made with.
    Else the batch is one. The mode is eval. The model is not run, and nothing in it changes.
    A model that holds rewritten networks is counted by its children, or each network by itself:
    `cost(model.backbone)`.

    Raises `PlanError` where the model does not run on that, with a call that works where one is
    found, `ConfigError` for a bad size.

    >>> from torchvision.models import resnet18
    >>> result = cost(resnet18(), size=224)
    >>> result.total.params, result.total.macs
    (11689512, 1814073344)
    """
    spelled = repr(model) if isinstance(model, str) else "model"
    if isinstance(model, str):
        name, model = model, build_network(model)
    elif isinstance(model, nn.Module):
        name = _name(model)
    else:
        raise PlanError(f"cost: expected a torch.nn.Module or a name, got {type(model).__name__}.")

    try:
        example, calls = run(model, size, in_channels, example_input)
    except InputError as error:
        raise advised(model, spelled, error) from error
    thop, note = _thop(model, example)
    parts = _parts(model, example, calls)
    return Cost(name=name, input_shape=example.shape, parts=parts, thop=thop, thop_note=note)


def _name(model: nn.Module) -> str:
    """The base's class, and where in it there is a hidden state."""
    name = type(model).__name__
    for path, part in rewritten_in(model).items():
        if not path:
            name = part.rla.splice.base_class.__name__
        place = f" in {path}" if path else ""
        name += f" with RLA{place}, k={part.rla.config.k}"
    return name


def _thop(model: nn.Module, example: Example) -> tuple[int | None, str]:
    """thop's count, or the reason why there is none. A second opinion must not stop the first."""
    if not thop_available():
        return None, "not installed: pip install 'rlawrap[cost]'"
    try:
        return count_with_thop(model, example), ""
    except Exception as error:
        return None, f"thop fails on this model: {type(error).__name__}"


def _plan(model: nn.Module, example: Example) -> Plan | None:
    """The plan of a network, or None where there is no telling its blocks."""
    if isinstance(model, RLAModel):
        return model.rla.plan
    given = None if example.resized else example.given
    try:
        return make_plan(trace_model(skeleton_of(model), example_input=given), with_h=False)
    except RLAError:
        return None


def _split(
    model: nn.Module, example: Example, calls: list[Call]
) -> tuple[list[Call], list[str], list[str]]:
    """The calls with the part of each, and all parts in order."""
    plan = _plan(model, example)
    if plan is None:
        of_call = by_child(calls)
        return calls, of_call, list(dict.fromkeys(of_call))
    stages = [[block.path for block in stage.blocks] for stage in plan.stages]
    parts = [STEM, *map(stage_name, range(len(stages))), HEAD]
    hidden = _hidden_parts(model)
    modules = {path for path, _ in model.named_modules() if path}
    if not modules.issuperset(path for stage in stages for path in stage):
        own = _by_node(model, plan, example)
        base = [call for call in calls if not is_added(call.path)]
        added = [call for call in calls if is_added(call.path)]
        if own is not None and total_of(own[0]) == total_of(base):
            return [*own[0], *added], [*own[1], *assign_calls(added, [], hidden)], parts
    return calls, assign_calls(calls, stages, hidden), parts


def _by_node(model: nn.Module, plan: Plan, example: Example) -> tuple[list[Call], list[str]] | None:
    """The base's operations with the part of each, from its graph; None where that fails."""
    base = skeleton_of(model)
    leaves: tuple[type | str, ...] = ()
    if isinstance(base, RLAModel):
        leaves = base.rla.splice.settings.leaf_modules
    try:
        base = unwrap(base) if isinstance(base, RLAModel) else base
        args, kwargs = example.arguments(make_shadow(base))
        given = kwargs or args
        flow = trace_model(base, leaf_modules=leaves, example_input=given).flow
        return count_nodes(flow, plan, Example(example.shape, given))
    except Exception:
        return None  # the stages are then told by the modules alone


def _parts(model: nn.Module, example: Example, run: list[Call]) -> tuple[PartCost, ...]:
    calls, of_call, parts = _split(model, example, run)
    is_added = added_in(model)
    parameters = dict(model.named_parameters())
    of_parameter = assign_parameters(parameters, calls, of_call)
    base: dict[str, Count] = dict.fromkeys([*parts, UNUSED], Count())
    rla = dict(base)
    # The pooling before a classifier is not in the paper's count: no convolution comes after it.
    convolves = [(is_added(call.path), i) for i, call in enumerate(calls) if call.ops.conv_macs]
    last = dict(convolves)
    for index, (call, part) in enumerate(zip(calls, of_call, strict=True)):
        added = is_added(call.path)
        side = rla if added else base
        side[part] += Count(
            macs=call.ops.macs,
            norm_elements=call.ops.norm_elements,
            pool_elements=call.ops.pool_elements if index < last.get(added, -1) else 0,
        )
    for name, parameter in parameters.items():
        side = rla if is_added(name) else base
        side[of_parameter[name]] += Count(params=parameter.numel())
    return tuple(
        PartCost(name=name, base=base[name], rla=rla[name])
        for name in base
        if base[name] != Count() or rla[name] != Count()
    )


def _hidden_parts(model: nn.Module) -> dict[str, str]:
    """The stage of the modules that carry a block's number, such as `rla.inject.4`, and the head.

    The modules that blocks share (`rla.input`, `rla.cell`) belong to the stage they run in.
    """
    if not isinstance(model, RLAModel):
        return {}
    stages = [stage_name(i) for i, stage in enumerate(model.rla.plan.stages) for _ in stage.blocks]
    parts = {names.HEAD: HEAD}
    for path, _ in model.named_modules():
        index = names.block_index(path)
        if index is not None and index < len(stages):
            parts[path] = stages[index]
    return parts
