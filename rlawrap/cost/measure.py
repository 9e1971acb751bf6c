"""`cost(model)`: count the calls, put them into parts, add the parameters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rlawrap._torch import ConvNd
from rlawrap.cost.count import Call, count_calls, skeleton_of
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
from rlawrap.errors import ConfigError, PlanError, RLAError
from rlawrap.flow.traced import trace_model
from rlawrap.networks import build_network
from rlawrap.splice import RLAModel

IMAGE_SIZE = 224


def cost(
    model: nn.Module | str,
    size: int | Sequence[int] | None = None,
    *,
    in_channels: int | None = None,
) -> Cost:
    """Exact parameter and operation counts of a network, per stage, base against RLA.

    `model` is any module, or a name: one of `rlawrap.models.list_models()`, or a torchvision or
    timm network ("torchvision:resnet50" where both know it). `size` is the side of the
    input, or one number per spatial axis; by default 224, or what the model's own
    `default_cfg` says (timm's networks and the CIFAR-style ones have it).
    The channels of the input are read off the first convolution unless `in_channels` is given.
    The batch is one, the mode eval. The model is not run, and nothing in it changes.

    Raises `PlanError` where the model does not run at that size, `ConfigError` for a bad size.

    >>> from torchvision.models import resnet18
    >>> result = cost(resnet18(), size=224)
    >>> result.total.params, result.total.macs
    (11689512, 1814073344)
    """
    if isinstance(model, str):
        name, model = model, build_network(model)
    elif isinstance(model, nn.Module):
        name = type(model).__name__
        if isinstance(model, RLAModel):
            name = f"{model.rla.splice.base_class.__name__} with RLA, k={model.rla.config.k}"
    else:
        raise PlanError(f"cost: expected a torch.nn.Module or a name, got {type(model).__name__}.")

    shape = input_shape(model, size, in_channels)
    calls = count_calls(model, shape)
    thop, note = _thop(model, shape)
    return Cost(name=name, input_shape=shape, parts=_parts(model, calls), thop=thop, thop_note=note)


def input_shape(
    model: nn.Module, size: int | Sequence[int] | None = None, in_channels: int | None = None
) -> tuple[int, ...]:
    """(1, channels, *sides) for a network, from its first convolution and the size asked for."""
    convolution = next((m for m in model.modules() if isinstance(m, ConvNd)), None)
    if convolution is None and (in_channels is None or size is None or isinstance(size, int)):
        raise PlanError(
            f"cost: {type(model).__name__} holds no convolution module, so the shape of its input "
            "is unknown. Pass in_channels= and size= with one number per spatial axis."
        )
    if size is None:
        own = getattr(model, "default_cfg", None)
        size = tuple(own["input_size"][1:]) if own and "input_size" in own else IMAGE_SIZE
    if isinstance(size, int):
        assert convolution is not None
        size = (size,) * len(convolution.kernel_size)
    sides = tuple(int(side) for side in size)
    if not sides or min(sides) < 1:
        raise ConfigError(f"cost: size={sides} is no size; every side must be at least 1.")
    if convolution is not None and len(sides) != len(convolution.kernel_size):
        raise ConfigError(
            f"cost: size={sides} has {len(sides)} sides, but the first convolution of "
            f"{type(model).__name__} has {len(convolution.kernel_size)} spatial axes."
        )
    if in_channels is None:
        assert convolution is not None
        in_channels = convolution.in_channels
    return (1, in_channels, *sides)


def _thop(model: nn.Module, shape: Sequence[int]) -> tuple[int | None, str]:
    """thop's count, or the reason why there is none. A second opinion must not stop the first."""
    if not thop_available():
        return None, "not installed: pip install 'rlawrap[cost]'"
    try:
        return count_with_thop(model, shape), ""
    except Exception as error:
        return None, f"thop fails on this model: {type(error).__name__}"


def _stages(model: nn.Module) -> list[list[str]] | None:
    """Module paths of the blocks by stage, or None where there is no telling."""
    try:
        if isinstance(model, RLAModel):
            plan = model.rla.plan
        else:
            plan = make_plan(trace_model(skeleton_of(model)), with_h=False)
    except RLAError:
        return None
    stages = [[block.path for block in stage.blocks] for stage in plan.stages]
    return stages if all(path for stage in stages for path in stage) else None


def _parts(model: nn.Module, calls: Sequence[Call]) -> tuple[PartCost, ...]:
    stages = _stages(model)
    if stages is None:
        of_call = by_child(calls)
        names = list(dict.fromkeys(of_call))
    else:
        of_call = assign_calls(calls, stages, _hidden_parts(model))
        names = [STEM, *map(stage_name, range(len(stages))), HEAD]

    parameters = dict(model.named_parameters())
    owners = {name: name.rpartition(".")[0] for name in parameters}
    of_owner = assign_parameters(owners.values(), calls, of_call)

    base: dict[str, Count] = dict.fromkeys([*names, UNUSED], Count())
    rla = dict(base)
    # The pooling before a classifier is not in the paper's count: no convolution comes after it.
    last_convolution = max((i for i, call in enumerate(calls) if call.ops.conv_macs), default=-1)
    for index, (call, part) in enumerate(zip(calls, of_call, strict=True)):
        side = rla if is_added(call.path) else base
        side[part] += Count(
            macs=call.ops.macs,
            norm_elements=call.ops.norm_elements,
            pool_elements=call.ops.pool_elements if index < last_convolution else 0,
        )
    for name, parameter in parameters.items():
        side = rla if is_added(name) else base
        side[of_owner[owners[name]]] += Count(params=parameter.numel())
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
