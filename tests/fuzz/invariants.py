"""What must hold for every network: `check(case)` raises `Broken` or says how the case ended."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import rlawrap
from rlawrap.copying import deep_copy
from tests.advice import ends, quiet
from tests.fuzz.blocks import Block
from tests.fuzz.build import build, inputs_of, tensors_of
from tests.fuzz.learning import every_parameter_learns, randomise_rla
from tests.fuzz.refused import WRAPPERS
from tests.fuzz.running import (
    Snapshot,
    bits_equal,
    close,
    demand,
    differs,
    run,
    runs,
    without_onednn,
)
from tests.fuzz.spec import Case, NetSpec
from tests.fuzz.strategy import JOINING_KINDS

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@dataclass(frozen=True)
class Outcome:
    """`rewritten`, or the class and message of the `RLAError`, or `invalid`: no network.

    `advised`: refused, and rewritten as the message told; `hopeless`: nothing could be rewritten.
    """

    kind: str
    message: str = ""


def steering(spec: NetSpec) -> dict[str, Any]:
    """What a user has to tell `apply` about this network: an input where it cannot be guessed."""
    fixed = spec.head in ("flatten", "view") and not spec.functional
    named = ("condition", "mask", "domain", "listed", "guide")
    given = (spec.arguments in named and not spec.functional) or spec.refused in WRAPPERS
    if spec.refused == "untold":
        return {}
    if fixed or given or spec.give_example:
        example = inputs_of(spec, seed=3, batch=2)
        return {"example_input": example if given else next(iter(example.values()))}
    return {}


def follow(case: Case, net: nn.Module, arguments: dict[str, Any]) -> int:
    """Do what a refusal tells to do; how many networks with h that comes to.

    Each computes what the base does; a part may ask for an input like the one that it gets. The
    other ends are refusals that tell no call.
    """
    spec = case.net
    told = steering(replace(spec, refused="none", give_example=True))
    rewritten = 0
    for end in ends(net, arguments, {"x": told["example_input"]}):
        if isinstance(end, nn.Module):
            base = run(net, spec)
            try:
                out = run(end, spec)
            except AssertionError as error:
                if "as example_input=" not in str(error):
                    raise
                out = run(again_with_example(end, net, spec), spec)
            close(base, out, TOLERANCE[spec.dtype], "eval mode, as told")
            rewritten += 1
        else:
            demand(isinstance(end, rlawrap.RLAError), f"what is told comes to {end!r}")
    return rewritten


def again_with_example(part: nn.Module, net: nn.Module, spec: NetSpec) -> nn.Module:
    """The rewrite of the same parts of a network, which are called with its own arguments."""
    paths = [path for path, m in part.named_modules() if isinstance(m, rlawrap.RLAModel)]
    where = {} if paths == [""] else {"at": paths}
    with quiet():
        return rlawrap.apply(net, example_input=inputs_of(spec, seed=3, batch=2), **where)


def check(case: Case) -> Outcome:
    """All invariants for one case.

    Of a forward that goes another way at its own size than at all sizes tried (a strided block adds
    its input where both are one pixel), they hold at that size when the advice is followed.
    """
    with without_onednn(case.net):
        try:
            return _check(case)
        except AssertionError as error:
            if "as example_input=" not in str(error) or case.net.give_example:
                raise
            given = replace(case, net=replace(case.net, give_example=True))
            return _check(given, other_sizes=False)


def _check(case: Case, *, other_sizes: bool = True) -> Outcome:
    spec = case.net
    try:
        net = build(spec)
    except (RuntimeError, ValueError):
        return Outcome("invalid")
    if not runs(net, spec):
        return Outcome("invalid")
    before = Snapshot(net)
    steer = steering(spec)
    try:
        with quiet():
            plan = rlawrap.inspect(net, **steer)
        before.compare(net, "inspect")
        model = quiet_apply(net, **steer, **case.options)
    except rlawrap.RLAError as error:
        before.compare(net, "a refused apply")
        demand(len(str(error)) > 20, f"an empty message: {error!r}")
        ways = follow(case, net, {**steer, **case.options})
        kind = "hopeless" if spec.refused == "linear" else type(error).__name__
        return Outcome("advised" if ways else kind, str(error))
    before.compare(net, "apply")
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    every_block_is_found(net, spec, plan)
    same_keys(net, model)
    same_function(case, net, model, other_sizes)
    model.load_state_dict(first)
    hidden_state_is_used(case, net, model, other_sizes)
    fused_is_equal(case, net, model, other_sizes)
    plan_round_trip(case, net, model, plan, steer)
    copies(case, net, model)
    model.load_state_dict(first)
    every_parameter_learns(case, model, first)
    before.compare(net, "the checks after apply")
    return Outcome("rewritten")


def quiet_apply(net: nn.Module, **kwargs: Any) -> rlawrap.RLAModel:
    """`apply`, in which no warning but an `RLAWarning` may come."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = rlawrap.apply(net, **kwargs)
    for warning in caught:
        demand(issubclass(warning.category, rlawrap.RLAWarning), f"apply warned: {warning.message}")
    return model


def every_block_is_found(net: nn.Module, spec: NetSpec, plan: rlawrap.Plan) -> None:
    """Of one kind of joining block in modules of its own, each is found, and nothing else.

    Not asked of kinds that are no blocks by themselves: linear joins, and branches that only join
    where the shape happens to fit; nor of networks that make a single pixel of a larger input too.
    """
    kinds = {stage.kind for stage in spec.stages}
    plain = all(stage.style in ("sequential", "loop", "module") for stage in spec.stages)
    fitting = {"inverted", "asking"} & kinds and all(stage.depth == 1 for stage in spec.stages)
    total = sum(stage.depth for stage in spec.stages)
    unasked = spec.functional or spec.decoder != "none" or not plain or fitting
    if unasked or total < 2 or len(kinds) > 1:
        return
    if kinds <= set(JOINING_KINDS) - {"rep"} and not ends_in_a_pixel(net, spec):
        found = [block.path for block in plan.blocks]
        demand(len(found) == total, f"{len(found)} blocks found of {total}: {found}")


def ends_in_a_pixel(net: nn.Module, spec: NetSpec) -> bool:
    """Whether a block returns a single pixel at a larger size as well."""
    twin, pixels = deep_copy(net), []
    for module in twin.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda m, i, out: pixels.append(out[0, 0].numel()))
    try:
        run(twin, spec, size=tuple(n + 8 * (i + 1) for i, n in enumerate(spec.size)))
    except RuntimeError:
        return False
    return 1 in pixels


def same_function(case: Case, net: nn.Module, model: nn.Module, other_sizes: bool) -> None:
    """Eval and train mode, running statistics after a step, other batch and image sizes."""
    spec, tolerance = case.net, TOLERANCE[case.net.dtype]
    demand(model.training == net.training, "the mode of the network changed")
    close(run(net, spec), run(model, spec), tolerance, "eval mode")
    larger = tuple(n + 5 + 2 * i for i, n in enumerate(spec.size))
    for batch, size in ((1, spec.size), (3, larger))[: 1 + other_sizes]:
        try:
            expected = run(net, spec, batch=batch, size=size)
        except RuntimeError:
            continue
        close(
            expected, run(model, spec, batch=batch, size=size), tolerance,
            f"batch {batch}, size {size}",
        )  # fmt: skip
    base = deep_copy(net)
    expected = run(base, spec, training=True, keep=True)
    close(expected, run(model, spec, training=True, keep=True), tolerance, "train mode")
    state = model.state_dict()
    for key, value in base.state_dict().items():
        close(value.double(), state[key].double(), tolerance, f"{key} after a step in train mode")


def same_keys(net: nn.Module, model: nn.Module) -> None:
    base, ours = net.state_dict(), model.state_dict()
    demand(list(ours)[: len(base)] == list(base), "the base's keys changed or moved")
    rest = list(ours)[len(base) :]
    demand(bool(rest) and all(k.startswith("rla.") for k in rest), f"keys outside rla.: {rest}")
    for key, value in base.items():
        demand(bits_equal(value, ours[key]), f"{key} has other values in the new model")
    flags = dict(net.named_parameters())
    for name, parameter in model.named_parameters():
        if name in flags:
            demand(parameter.requires_grad == flags[name].requires_grad, f"{name}: requires_grad")
            demand(parameter is not flags[name], f"{name} is shared with the base")


def plan_round_trip(
    case: Case, net: nn.Module, model: rlawrap.RLAModel, plan: rlawrap.Plan, steer: dict[str, Any]
) -> None:
    """A plan through JSON gives the same rewrite, which takes the state dict of this one."""
    read = rlawrap.Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    demand(read == plan, "a plan does not survive JSON")
    demand(str(read) == str(plan), "a plan prints otherwise after JSON")
    again = quiet_apply(net, plan=read, **steer, **case.options)
    demand(list(again.state_dict()) == list(model.state_dict()), "plan= makes another rewrite")
    again.load_state_dict(model.state_dict())
    close(run(model, case.net), run(again, case.net), 0.0, "state dict in a fresh apply")


def copies(case: Case, net: nn.Module, model: rlawrap.RLAModel) -> None:
    """deepcopy, unwrap and disabled, in both modes."""
    spec = case.net
    expected = run(model, spec)
    close(expected, run(copy.deepcopy(model), spec), 0.0, "deepcopy")
    base = rlawrap.unwrap(model)
    demand(type(base) is type(net), "unwrap gives another class")
    demand(list(base.state_dict()) == list(net.state_dict()), "unwrap gives other keys")
    for (name, a), (_, b) in zip(net.named_modules(), base.named_modules(), strict=True):
        flags = [(getattr(m, "inplace", None), m.training, type(m)) for m in (a, b)]
        demand(flags[0] == flags[1], f"unwrap: {name} has {flags[1]}, had {flags[0]}")
    for training in (False, True):
        out = run(net, spec, training=training)
        close(out, run(base, spec, training=training), 0.0, "unwrap")
        with rlawrap.disabled(model):
            close(out, run(model, spec, training=training), 0.0, "disabled")
    close(expected, run(model, spec), 0.0, "after unwrap and disabled")


def hidden_state_is_used(case: Case, net: nn.Module, model: nn.Module, other_sizes: bool) -> None:
    """Random rla weights change the outputs, at any batch and size the base takes."""
    spec = case.net
    larger = tuple(n + 3 + 4 * i for i, n in enumerate(spec.size))
    for inputs in ({}, {"batch": 2, "size": larger})[: 1 + other_sizes]:
        try:
            base = run(net, spec, **inputs)
        except RuntimeError:
            continue
        for seed in range(11, 17):  # of few values a ReLU may let none through
            randomise_rla(model, seed)
            if differs(base, run(model, spec, **inputs)):
                break
        else:
            demand(_is_dead(net, spec, inputs), f"random rla weights change no output, {inputs}")
    run(model, spec, training=True)


def _is_dead(net: nn.Module, spec: NetSpec, inputs: dict[str, Any]) -> bool:
    """Whether an output of the base does not depend on the image either: a ReLU lets none through.

    Which of several outputs h reaches is not asked: a dead one excuses them all.
    """
    first, *others = (tensors_of(run(net, spec, **inputs, seed=seed)) for seed in range(1, 5))
    alive = [any(not torch.equal(t, o[i]) for o in others) for i, t in enumerate(first)]
    return not all(alive)


def fused_is_equal(case: Case, net: nn.Module, model: nn.Module, other_sizes: bool) -> None:
    """`rlawrap.fuse` computes what the network does in eval mode, and leaves it as it was.

    In float64, as some networks are ill-conditioned: float32 alone is off by more than 1e-6.
    """
    spec = replace(case.net, dtype="float64")
    twin = copy.deepcopy(model).eval().double()
    before = Snapshot(twin)
    larger = tuple(n + 3 + 4 * i for i, n in enumerate(spec.size))
    for target in ("eager", "onnx"):
        try:
            fused = rlawrap.fuse(twin, target=target)
        except rlawrap.RLAError as error:
            before.compare(twin, "a refused fuse")
            demand(spec.hooked and "has hooks" in str(error), f"fuse refuses: {error}")
            return
        before.compare(twin, "fuse")
        for inputs in ({}, {"batch": 2, "size": larger})[: 1 + other_sizes]:
            try:
                run(net, case.net, **inputs)
            except RuntimeError:
                continue
            expected = run(twin, spec, **inputs)
            close(expected, run(fused, spec, **inputs), 1e-10, f"fused for {target}, {inputs}")
