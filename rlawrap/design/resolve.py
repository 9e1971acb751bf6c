"""(traced network, Plan, RLAConfig) -> Design: every layer to be made and where it is called."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

from torch import fx

from rlawrap.cells import Cell, CellSpec, get_cell
from rlawrap.config import RLAConfig
from rlawrap.design.head import head_path
from rlawrap.design.paths import Path, PathMaker
from rlawrap.errors import ConfigError, PlanError, RLAWarning
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.geometry import Resize, Step, route
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced
from rlawrap.plan import Block, Plan
from rlawrap.walks import chain, first_hits, only


@dataclass
class Entry:
    """One injection: the layers of its path, and the reference of the layer it adds to."""

    name: str
    target: str
    path: Path


@dataclass
class BlockDesign:
    """One block, resolved: all references, sizes and sharing known."""

    index: int
    block: Block
    parent: int | None
    input: str
    input_channels_last: bool
    source: str
    channels: int
    channels_last: bool
    entries: list[Entry]
    bring: list[Step]
    down: list[Step]
    source_steps: list[Step]
    cell_key: str
    input_key: str
    updates: bool = True


@dataclass
class Design:
    """The whole rewrite as data: `modules` builds it, `edit` writes it into graphs."""

    config: RLAConfig
    plan: Plan
    dims: int
    cell: Cell
    steps: list[BlockDesign]
    head: list[Entry] = field(default_factory=list)
    head_norm: bool = False
    head_act: str = "none"
    notes: list[str] = field(default_factory=list)


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
    _drop_unread(design)
    _warn_of_idle_options(design)
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


def _drop_unread(design: Design) -> None:
    """Leave out every update of h that nothing reads: its weights would never get a gradient."""
    needed = [False] * len(design.steps)
    if design.head:
        needed[-1] = True
    for step in reversed(design.steps):
        reads = bool(step.entries) or needed[step.index]
        if reads and step.parent is not None:
            needed[step.parent] = True
    for step, need in zip(design.steps, needed, strict=True):
        step.updates = need
    if not any(needed):
        raise ConfigError(
            "nothing reads the hidden state: h enters no block that another precedes, and it does "
            "not join a classifier. "
            + ("; ".join(design.notes) or "Change inject=, head= or blocks=.")
        )


def _warn_of_idle_options(design: Design) -> None:
    config, plan = design.config, design.plan
    idle = []
    if config.source == "branch" and all(b.branch is None for b in plan.blocks):
        idle.append("source='branch': no block has a residual branch, its output is used")
    if config.source == "input" and all(b.shortcut is None for b in plan.blocks):
        idle.append("source='input': no block has a shortcut, its input is used")
    if config.update != "pre" and not design.cell.has_forms:
        idle.append(f"update={config.update!r}: the cell {config.cell!r} has one form only")
    if config.head == "concat" and not design.head:
        idle.append("head='concat': the network has no classifier that h could join")
    if config.inject == "depthwise" and not any(
        name == "depthwise" for s in design.steps for e in s.entries for name, _ in e.path.layers
    ):
        idle.append("inject='depthwise': no block has a depthwise convolution behind its entry")
    if config.update == "split" and config.norm == "none":
        starts: dict[str, bool] = {}
        for step in design.steps:
            if step.updates:
                starts[step.cell_key] = starts.get(step.cell_key, True) and step.parent is None
        idle += [
            f"update='split' with norm='none': rla.cell.{key} convolves only h^0 = 0, which is "
            "nothing; use update='pre', a norm, or share='network'"
            for key, only in starts.items()
            if only and design.cell.has_forms
        ]
    for text in idle:
        if text.startswith("head=") and config.head == "concat":
            continue  # the default; the plan already says that there is no classifier
        warnings.warn(f"{text}.", RLAWarning, stacklevel=4)
