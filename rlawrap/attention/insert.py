"""`attend`: a copy of a network with channel attention at the end of every block's branch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import fx, nn

from rlawrap.attention.gates import ECA, SE, eca_kernel
from rlawrap.attention.rewrite import call_of, pass_through
from rlawrap.capture.arguments import make_arguments
from rlawrap.capture.shadow import device_and_dtype
from rlawrap.capture.trace import Frame, Trace
from rlawrap.copying import deep_copy
from rlawrap.discover.blocks import BlockChoice
from rlawrap.discover.planning import make_plan
from rlawrap.errors import ConfigError, PlanError
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References, frame_text
from rlawrap.flow.traced import Traced, trace_model
from rlawrap.plan import Block, Plan
from rlawrap.splice import RLAModel
from rlawrap.walks import chain


def attend(
    model: nn.Module,
    kind: Literal["eca", "se"] = "eca",
    *,
    kernel: int | Callable[[int], int] | None = None,
    reduction: int = 16,
    plan: Plan | None = None,
    blocks: BlockChoice | None = None,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
) -> nn.Module:
    """A copy of `model` with channel attention in every block; `model` is untouched.

    The gate acts on the end of the residual branch, before the addition (and before dropout or
    stochastic depth); in a block without one, on its output. The copy has the old class, keys and
    blocks, and takes part in `apply` like any network. New keys are `<block>.eca.conv.weight` or
    `<block>.se.fc.0.weight` and `.2.weight`; where the branch is an `nn.Sequential`, the gate
    becomes its next child.

    `kernel` is ECA's kernel size, or a function of the channels; by default it grows with them
    (`eca_kernel`). `reduction` is SE's. The other arguments choose the blocks as in `inspect`.
    A fresh gate is not neutral: it starts near one half.

    Raises `ConfigError` for an option, `PlanError` and `TraceError` as `apply` does.

    >>> import rlawrap, torchvision
    >>> model = rlawrap.attend(torchvision.models.resnet18(weights=None), "eca")
    >>> model.layer1[0].eca.conv.weight.shape
    torch.Size([1, 1, 3])
    """
    make = _maker(kind, kernel, reduction)
    if plan is not None and blocks is not None:
        raise ConfigError("attend: give plan= or blocks=, not both.")
    if isinstance(model, RLAModel):
        raise PlanError("attend(model): it already has a hidden state; attend first, then apply.")
    traced = trace_model(
        model, leaf_modules=leaf_modules, example_input=example_input, call="attend(model)"
    )
    plan = plan if plan is not None else make_plan(traced, blocks=blocks, with_h=False)
    base = deep_copy(model)
    with torch.random.fork_rng(devices=[]):
        done: set[tuple[int, str]] = set()
        calls = _calls(traced, plan)
        for block in plan.blocks:
            _attend_block(base, traced.flow, block, kind, make, calls, done)
    return base


def _maker(
    kind: str, kernel: int | Callable[[int], int] | None, reduction: int
) -> Callable[..., nn.Module]:
    if kind == "se":
        if kernel is not None:
            raise ConfigError("attend: kernel= is for 'eca'; 'se' has none.")
        if not isinstance(reduction, int) or isinstance(reduction, bool) or reduction < 1:
            raise ConfigError(
                f"attend(reduction={reduction!r}): give a whole number of at least 1."
            )
        return lambda channels, **layout: SE(channels, reduction=reduction, **layout)
    if kind != "eca":
        raise ConfigError(f"attend(kind={kind!r}): choose 'eca' or 'se'.")

    def make(channels: int, **layout: Any) -> nn.Module:
        size = eca_kernel(channels) if kernel is None else kernel
        size = size(channels) if callable(size) else size
        if not isinstance(size, int) or isinstance(size, bool) or size < 1 or size % 2 == 0:
            raise ConfigError(f"attend: ECA's kernel must be odd, like 3; got {size!r}.")
        return ECA(size, **layout)

    return make


def _attend_block(
    base: nn.Module,
    flow: Flow,
    block: Block,
    kind: str,
    make: Callable[..., nn.Module],
    calls: dict[str, dict[str, Any]],
    done: set[tuple[int, str]],
) -> None:
    refs = References(flow.trace)
    node = _before_drops(flow, refs.node(block.branch or block.output))
    channels, axis = flow.channels(node), flow.channel_axis(node)
    if channels is None or axis is None:
        raise PlanError(f"block {block.path!r}: {refs.name(node)!r} has no channel axis.")
    owner_path, reference = _place(flow.trace, refs, node, block.path.partition("#")[0])
    owner = base.get_submodule(owner_path)
    if (id(owner), reference) in done:
        return  # a module that runs several times has one gate, as it has one of everything
    done.add((id(owner), reference))
    gate = make(channels, dims=flow.rank - 2, channels_last=axis != 1)
    device, dtype = device_and_dtype(owner, base)
    gate.to(device=device, dtype=dtype).train(owner.training)
    if _is_sequential(owner) and ":" not in reference:
        _insert_child(owner, reference.partition("#")[0], gate, kind)
        return
    name = _free_name(owner, kind)
    owner.add_module(name, gate)
    pass_through(owner, reference, name, calls[owner_path])


def _calls(traced: Traced, plan: Plan) -> dict[str, dict[str, Any]]:
    """By module path, how its callers call it, from a run on meta tensors."""
    trace = traced.trace
    root = trace.root.eval()
    calls: dict[str, dict[str, Any]] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.setdefault(path, call_of(module, args, kwargs))

        return hook

    hooks = [
        root.get_submodule(path).register_forward_pre_hook(note(path), with_kwargs=True)
        for path in {frame[0] for frame in trace.calls}
    ]
    given = make_arguments(trace.shadow, traced.example, traced.flow.shapes.inputs[0])
    with trace.on_meta(), torch.no_grad():
        root(*given.args, **given.kwargs)
    for hook in hooks:
        hook.remove()
    # The network itself is called with the image.
    calls[""] = call_of(root, given.args, dict(given.kwargs))
    return calls


def _before_drops(flow: Flow, node: fx.Node) -> fx.Node:
    """The value before dropout, stochastic depth and identities."""

    def before(n: fx.Node) -> fx.Node | None:
        passes = flow.ops.dropout(n) or flow.ops.identity(n)
        return flow.sources[n][0] if passes and len(flow.sources[n]) == 1 else None

    return chain(node, before)[-1]


def _is_sequential(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward


def _place(trace: Trace, refs: References, node: fx.Node, block: str) -> tuple[str, str]:
    """The module whose forward the gate goes into, and the reference of the value in there.

    A value that a module below the block returns is seen from the module that called it, unless
    that is an `nn.Sequential`, which takes the gate as a child.
    """
    stack = [("", 0), *trace.stacks[node]]
    called = trace.leaf_frames.get(node)
    while True:
        owner = stack[-1]
        # Numbers of functions count within a call of their owner as they are.
        within = _within(trace, owner, called) if called else ":" + refs.name(node).split(":")[1]
        call = trace.calls.get(owner)
        settled = called is not None and _is_sequential(trace.module(owner[0]))
        if settled or owner[0] == block or call is None or call.output is not node:
            return owner[0], within
        called = stack.pop()


def _within(trace: Trace, owner: Frame, called: Frame) -> str:
    """The reference of a module call as the forward of its caller alone has it.

    There the module is called by the caller's own path to it, and calls count from the caller's.
    """
    paths = {id(child): path for path, child in trace.module(owner[0]).named_modules()}
    stacks = [(frame, trace.stacks[node]) for node, frame in trace.leaf_frames.items()]
    stacks += [(call.frame, call.parents) for call in trace.calls.values()]
    before = min(n for (p, n), stack in stacks if p == called[0] and owner in (("", 0), *stack))
    return frame_text((paths.get(id(trace.module(called[0])), called[0]), called[1] - before))


def _insert_child(sequential: nn.Module, child: str, gate: nn.Module, kind: str) -> None:
    """Put the gate behind a child: at the end as the next number, within under a new name."""
    names = list(sequential._modules)
    last = child == names[-1]
    numbered = names == [str(i) for i in range(len(names))]
    name = str(len(names)) if last and numbered else _free_name(sequential, f"{child}_{kind}")
    if last and not numbered:
        name = _free_name(sequential, kind)
    modules = list(sequential._modules.items())
    modules.insert(names.index(child) + 1, (name, gate))
    sequential._modules.clear()
    sequential._modules.update(modules)


def _free_name(module: nn.Module, kind: str) -> str:
    name, n = kind, 1
    while hasattr(module, name):
        n += 1
        name = f"{kind}{n}"
    return name
