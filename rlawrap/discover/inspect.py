"""`inspect`: the plan of the rewrite, found without touching the model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import fx, nn

from rlawrap.capture.probes import first_input_channels
from rlawrap.discover.blocks import BlockChoice, BlockFinder
from rlawrap.discover.stages import StageChoice, group, link
from rlawrap.discover.wiring import Wired, wire
from rlawrap.errors import PlanError
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced, trace_model
from rlawrap.plan import Block, Plan, Stage


def inspect(
    model: nn.Module,
    *,
    blocks: BlockChoice | None = None,
    stages: StageChoice | None = None,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
) -> Plan:
    """The plan of `rlawrap.apply`: stages, blocks, where h enters and what it is updated from.

    `blocks` chooses the block modules by hand (a class, a tuple of classes, a list of paths, a
    glob, or a function of path and module), `stages` groups them (block counts, or a glob for each
    stage), `leaf_modules` (classes or paths) are not traced into, `example_input` is a tensor, a
    tuple or a dict by argument name that the network accepts. Nothing is computed and `model` is
    left as it is. Raises `PlanError` and `TraceError`.

    >>> import rlawrap, torchvision
    >>> plan = rlawrap.inspect(torchvision.models.resnet18(weights=None))
    >>> [len(stage.blocks) for stage in plan.stages], plan.blocks[0].entries
    ([2, 2, 2, 2], ('layer1.0.conv1',))
    """
    traced = trace_model(model, leaf_modules=leaf_modules, example_input=example_input)
    return make_plan(traced, blocks=blocks, stages=stages)


def make_plan(
    traced: Traced, *, blocks: BlockChoice | None = None, stages: StageChoice | None = None
) -> Plan:
    """The plan of a traced network. Raises `PlanError` if no block is found."""
    flow = traced.flow
    finder = BlockFinder(flow)
    found = finder.choose(blocks) if blocks is not None else finder.find()
    if not found and blocks is not None:
        raise PlanError(
            f"blocks={blocks!r} names modules of {type(flow.trace.root).__name__} of which none "
            "returns an image on the way to the output."
        )
    if not found:
        sequences = [p for p, why in finder.left_out.items() if "tokens" in why]
        others = (
            f"; its residual modules ({', '.join(sequences[:3])}, …) work on sequences of tokens, "
            "not on images"
            if sequences
            else ""
        )
        dims = first_input_channels(flow.trace.root)[1]
        if dims != flow.rank - 2:
            others = (
                f": its convolutions work on {dims} axes and its input has {flow.rank - 2} of "
                "them. Rewrite the part that takes images alone, like model.backbone = "
                "rlawrap.apply(model.backbone)"
            )
        raise PlanError(
            f"no blocks found in {type(flow.trace.root).__name__}: no residual adds, no "
            f"concatenations, no repeated convolving modules{others}. Name them with blocks= (a "
            "class, paths or a glob), or write a Plan and pass plan=."
        )
    wired = [wire(flow, f) for f in found]
    refs = References(flow.trace)
    parents = link(flow, wired)
    grouped = group(flow, wired, stages)
    described = [_describe(flow, refs, w, parents[i]) for i, w in enumerate(wired)]
    built = tuple(
        Stage(index=s, blocks=tuple(described[i] for i in indices))
        for s, indices in enumerate(grouped)
    )
    head = find_head(flow, wired)
    notes = list(traced.notes)
    read = any(w.entries and p is not None for w, p in zip(wired, parents, strict=True))
    if not head and not read:
        notes.append(
            "nothing reads h: it enters no block that another precedes, and no classifier follows; "
            "choose more blocks with blocks=, or write a Plan with a head"
        )
    return Plan(
        model=type(flow.trace.root).__name__,
        input_shape=flow.shapes.inputs[0],
        stages=built,
        head=tuple(refs.name(n) for n in head),
        left_out=tuple(finder.left_out.items()),
        notes=tuple(dict.fromkeys(notes)),
    )


def _describe(flow: Flow, refs: References, wired: Wired, parent: int | None) -> Block:
    found = wired.found
    output = refs.name(wired.output)
    if found.frame is not None:
        text = found.path if found.frame[1] == 0 else f"{found.path}#{found.frame[1]}"
        if refs.find(text) is wired.output:
            output = text
    before, after = flow.spatial(wired.input), flow.spatial(wired.output)
    stride = None
    if before and after and min(after) > 0:
        stride = round(math.prod(before) / math.prod(after), 3) ** (1 / len(after))
        stride = round(stride, 2)
    return Block(
        path=output if found.frame is not None and found.frame[1] else found.path,
        class_name=found.class_name,
        input=refs.name(wired.input),
        entries=tuple(refs.name(n) for n in wired.entries),
        branch=None if wired.branch is None else refs.name(wired.branch),
        shortcut=None if wired.shortcut is None else refs.name(wired.shortcut),
        output=output,
        after=parent,
        in_channels=flow.channels(wired.input),
        channels=flow.channels(wired.output),
        stride=stride,
        size=after,
        note=wired.note,
    )


def find_head(flow: Flow, wired: list[Wired]) -> list[fx.Node]:
    """The first convolutions or linear layers behind the last block on the way out (rule 23)."""
    if not wired:
        return []
    last = wired[-1].output
    if not flow.derives(flow.main_output, last):
        return []
    alive = flow.above[flow.main_output]
    inner = {n for w in wired for n in w.found.nodes}
    found: list[fx.Node] = []
    seen: set[fx.Node] = set()
    stack = [last]
    while stack:
        node = stack.pop()
        for user in node.users:
            if user in seen or user not in flow.data or not alive >> flow.position[user] & 1:
                continue
            seen.add(user)
            conv = flow.ops.conv(user)
            if conv is None:
                stack.append(user)
            elif user not in inner and not conv.transposed:
                found.append(user)
    first = [n for n in found if not any(n is not o and flow.derives(n, o) for o in found)]
    return sorted(first, key=flow.position.__getitem__)
