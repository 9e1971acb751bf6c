"""(traced network, Plan, RLAConfig) -> Design: every layer to be made and where it is called."""

from __future__ import annotations

import warnings

from torch import fx

from rlawrap.cells import CellSpec, get_cell
from rlawrap.config import RLAConfig
from rlawrap.design.design import BlockDesign, Design, Entry
from rlawrap.design.head import head_path
from rlawrap.design.idle import drop_unread, warn_of_idle_options
from rlawrap.design.paths import PathMaker
from rlawrap.design.trained import fit_training
from rlawrap.errors import PlanError, RLAWarning
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.geometry import Resize, Step, route
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced
from rlawrap.plan import Block, Plan
from rlawrap.walks import chain, first_hits, only


def resolve(traced: Traced, plan: Plan, config: RLAConfig) -> Design:
    """Work out the rewrite. Raises `PlanError` for a plan that does not fit the network."""
    flow = traced.flow
    refs = References(flow.trace)
    spec = CellSpec(config.k, flow.rank - 2, config.kernel, config.norm, config.update)
    cell = get_cell(config.cell)(spec)
    maker = PathMaker(flow, config.k, config.norm)
    if not plan.blocks:
        raise PlanError("the plan has no blocks; rlawrap.inspect(model) makes one that has.")
    design = Design(config, plan, flow.rank - 2, cell, [])
    stage_of = [s.index for s in plan.stages for _ in s.blocks]
    for i, block in enumerate(plan.blocks):
        design.steps.append(_step(design, flow, refs, maker, i, block, stage_of[i]))
    _add_head(design, flow, refs, maker)
    fit_training(design, traced)
    drop_unread(design)
    warn_of_idle_options(design)
    for text in traced.warnings:
        warnings.warn(f"{text}.", RLAWarning, stacklevel=3)
    return design


def _parent(i: int, block: Block) -> int | None:
    if block.after == "previous":
        return i - 1 if i else None
    if block.after is None or (isinstance(block.after, int) and 0 <= block.after < i):
        return block.after
    raise PlanError(f"block {block.path!r}: after={block.after!r} names no block before it.")


def _step(
    design: Design, flow: Flow, refs: References, maker: PathMaker, i: int, block: Block, stage: int
) -> BlockDesign:
    config = design.config
    parent = _parent(i, block)
    output = _image(flow, refs, block.output, block)
    entries = [_image(flow, refs, e, block) for e in block.entries]
    if block.input is not None:
        start = _image(flow, refs, block.input, block)
    else:
        start = flow.sources[entries[0]][0] if entries else output
    source, source_steps = _source(design, flow, refs, block, start, output)
    if parent is not None:
        bring = _route(flow, refs.node(design.plan.blocks[parent].output), start)
    else:
        bring = []
    built = _paths(design, flow, refs, maker, block, entries, start, output, i)
    if parent is None and config.initial_state == "none":
        built = []
    shared = {"stage": str(stage), "network": "0", "none": str(i)}[config.share]
    channels = flow.channels(source)
    if channels is None:
        raise PlanError(f"block {block.path!r}: {refs.name(source)!r} has no channel axis.")
    own = str(i) if config.share == "none" else f"{stage}_{channels}"
    return BlockDesign(
        index=i,
        block=block,
        parent=parent,
        input=refs.name(start),
        input_channels_last=flow.channel_axis(start) != 1,
        source=refs.name(source),
        channels=channels,
        channels_last=flow.channel_axis(source) != 1,
        entries=built,
        bring=bring,
        down=_route(flow, start, output),
        source_steps=source_steps,
        cell_key=shared,
        input_key=own,
    )


def _image(flow: Flow, refs: References, reference: str, block: Block) -> fx.Node:
    node = refs.node(reference)
    if node not in flow.data or flow.channel_axis(node) is None:
        raise PlanError(
            f"block {block.path!r}: {reference!r} is no image-like tensor computed from the input."
        )
    return node


def _route(flow: Flow, source: fx.Node, goal: fx.Node) -> list[Step]:
    steps = route(flow, source, goal)
    return [Resize()] if steps is None else steps


def _source(
    design: Design, flow: Flow, refs: References, block: Block, start: fx.Node, output: fx.Node
) -> tuple[fx.Node, list[Step]]:
    """The tensor that updates h, and how it is brought to the size of the block's output."""
    which = design.config.source
    if which == "output":
        return output, []
    if which == "branch":
        node = output if block.branch is None else _image(flow, refs, block.branch, block)
    else:
        node = start if block.shortcut is None else _image(flow, refs, block.shortcut, block)
    if flow.same_size(node, output):
        return node, []
    steps = route(flow, node, output)
    if steps is None:
        design.notes.append(f"{block.path}: updated from its output, its {which} has another size")
        return output, []
    return node, steps


def _paths(
    design: Design,
    flow: Flow,
    refs: References,
    maker: PathMaker,
    block: Block,
    entries: list[fx.Node],
    start: fx.Node,
    output: fx.Node,
    index: int,
) -> list[Entry]:
    if design.config.inject == "none":
        return []
    if design.config.inject == "depthwise":
        entries = _depthwise_after(flow, entries, output) or entries
    built: list[Entry] = []
    taken: set[fx.Node] = set()
    for layer in entries:
        conv = flow.ops.conv(layer)
        if conv is None:
            raise PlanError(
                f"block {block.path!r}: its entry {refs.name(layer)!r} is no convolution or linear "
                "layer, which h could join."
            )
        deeper = design.config.inject == "depthwise" and conv.depthwise
        behind = deeper and not _reads(flow, layer, start)
        path = maker.entry(layer, start, output, behind)
        if path.problem:
            design.notes.append(
                f"{block.path}: h does not enter {refs.name(layer)}: {path.problem}"
            )
            continue
        if path.target in taken:
            continue
        taken.add(path.target)
        name = str(index) if not built else f"{index}_{len(built)}"
        built.append(Entry(name, refs.name(path.target), path))
    return built


def _reads(flow: Flow, layer: fx.Node, start: fx.Node) -> bool:
    """Whether no convolution lies between a layer and the block's input."""

    def before(node: fx.Node) -> fx.Node | None:
        passes = node is not start and flow.ops.conv(node) is None
        return only(flow.sources[node]) if passes else None

    return chain(flow.sources[layer][0], before)[-1] is start


def _depthwise_after(flow: Flow, entries: list[fx.Node], output: fx.Node) -> list[fx.Node]:
    """A block's first depthwise convolution at or behind its entries (MobileNetV2 as published)."""

    def depthwise(node: fx.Node) -> bool:
        conv = flow.ops.conv(node)
        return conv is not None and conv.depthwise

    def onward(node: fx.Node) -> list[fx.Node]:
        ends = node is output or (flow.ops.conv(node) is not None and node not in entries)
        return [] if ends else [user for user in node.users if user in flow.data]

    return first_hits(entries, onward, depthwise)[:1]


def _add_head(design: Design, flow: Flow, refs: References, maker: PathMaker) -> None:
    config = design.config
    if config.head == "none":
        return
    last = refs.node(design.plan.blocks[-1].output)
    for i, reference in enumerate(design.plan.head):
        if flow.ops.conv(refs.node(reference)) is None:
            raise PlanError(
                f"the plan's head {reference!r} is no convolution or linear layer, which h could "
                "join."
            )
        path = head_path(maker, refs.node(reference), last)
        if path.problem:
            design.notes.append(f"head: h does not join {reference}: {path.problem}")
            continue
        design.head.append(Entry(str(i), reference, path))
    if design.head:
        auto = not design.cell.ends_active
        design.head_norm = config.head_norm == "yes" or (config.head_norm == "auto" and auto)
        act = ("relu" if auto else "none") if config.head_act == "auto" else config.head_act
        design.head_act = act
