"""(traced network, Plan, RLAConfig) -> Design: every layer to be made and where it is called."""

from __future__ import annotations

import warnings

from torch import fx

from rlawrap.cells import CellSpec, get_cell
from rlawrap.config import HEAD_WORDS, RLAConfig
from rlawrap.design.design import BlockDesign, Design, Entry
from rlawrap.design.entries import Network, entry_paths
from rlawrap.design.head import without_idle_slope
from rlawrap.design.heads import head_entries
from rlawrap.design.idle import drop_unread, nothing_reads, warn_of_idle_options
from rlawrap.design.living import drop_dead
from rlawrap.design.trained import fit_training
from rlawrap.errors import ConfigError, PlanError, RLAWarning
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.geometry import Step, resize_to, route
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced
from rlawrap.plan import Block, Plan


def resolve(traced: Traced, plan: Plan, config: RLAConfig) -> Design:
    """Work out the rewrite. Raises `PlanError` for a plan that does not fit the network."""
    design = _designed(traced, plan, config)
    if not drop_unread(design):
        helps = lambda other: drop_unread(_designed(traced, plan, other))  # noqa: E731
        raise ConfigError(nothing_reads(design, helps))
    warn_of_idle_options(design)
    for text in (*traced.warnings, *_lost(design)):
        warnings.warn(f"{text}.", RLAWarning, stacklevel=4)
    return design


def _designed(traced: Traced, plan: Plan, config: RLAConfig) -> Design:
    """The design with every update of h, read or not."""
    network = Network.of(traced, config)
    dims = traced.flow.rank - 2
    cell = get_cell(config.cell)(
        CellSpec(config.k, dims, config.kernel, config.norm, config.update)
    )
    if not plan.blocks:
        raise PlanError("the plan has no blocks; `rlawrap.inspect(model)` makes one that has.")
    design = Design(config, plan, dims, cell, [])
    stage_of = [s.index for s in plan.stages for _ in s.blocks]
    for i, block in enumerate(plan.blocks):
        design.steps.append(_step(design, network, i, block, stage_of[i]))
    _add_head(design, network)
    fit_training(design, traced)
    drop_dead(design, traced)
    return design


def _lost(design: Design) -> list[str]:
    """What `apply` warns of: entries that the plan lists and h cannot reach, or enters in vain."""
    if not design.unreached:
        return []
    more = len(design.unreached) - 5
    rest = f"; and {more} more, in the notes of its plan" if more > 0 else ""
    return ["; ".join(design.unreached[:5]) + rest]


def _parent(i: int, block: Block) -> int | None:
    if block.after == "previous":
        return i - 1 if i else None
    if block.after is None or (isinstance(block.after, int) and 0 <= block.after < i):
        return block.after
    raise PlanError(f"block {block.path!r}: after={block.after!r} names no block before it.")


def _step(design: Design, network: Network, i: int, block: Block, stage: int) -> BlockDesign:
    config, flow, refs = design.config, network.flow, network.refs
    parent = _parent(i, block)
    output = _image(flow, refs, block.output, block)
    entries = [_image(flow, refs, e, block) for e in block.entries]
    if block.input is not None:
        start = _image(flow, refs, block.input, block)
    else:
        start = flow.sources[entries[0]][0] if entries else output
    source, source_steps = _source(design, flow, refs, block, start, output)
    if parent is not None:
        bring = _route(flow, refs.node(design.steps[parent].block.output), start)
    else:
        bring = []
    paths, notes = entry_paths(network, block, entries, start, config.inject)
    if parent is None and config.initial_state == "none":
        paths, notes = [], []  # h^0 = 0, which would add nothing
    design.unreached += notes
    built = [
        Entry.of(f"{i}_{n}" if n else str(i), refs.name(path.target), path, refs)
        for n, path in enumerate(paths)
    ]
    for entry in built:
        entry.detached = flow.severed(refs.node(entry.target), start)
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
    if steps is not None:
        return steps
    resize = resize_to(flow, goal)
    return [] if resize is None else [resize]


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


def _add_head(design: Design, network: Network) -> None:
    config = design.config
    if config.head == "none":
        return
    design.head, notes = head_entries(network, design.plan)
    if notes and config.head not in HEAD_WORDS:
        raise ConfigError(f"head={config.head!r}: {'; '.join(notes)}. Name another head.")
    design.notes += notes
    if design.head:
        auto = not design.cell.ends_active
        design.head_norm = config.head_norm == "yes" or (config.head_norm == "auto" and auto)
        act = ("relu" if auto else "none") if config.head_act == "auto" else config.head_act
        design.head_act = act
        for entry in design.head:
            entry.path = without_idle_slope(entry.path, act)
