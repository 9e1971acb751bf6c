"""Which parameters of a rewrite cannot learn, whatever is done: the options leave them idle."""

from __future__ import annotations

from itertools import pairwise

import rlawrap


def inert(model: rlawrap.RLAModel) -> set[str]:
    """Parameters that the options themselves leave without effect.

    `initial_state="zeros"`: what multiplies h^0; `update="split"`: the norm that reads h^0, and
    without a norm the whole cell where it only ever convolves h^0; the reset gate of a GRU that
    only ever resets h^0; a norm of each channel alone before an average over the image: all that
    only the head reads.
    """
    config, blocks = model.config, model.plan.blocks
    first = [i for i, block in enumerate(blocks) if block.after is None]
    starts = [f"rla.block.{i}.norm.weight" for i in first if config.update == "split"]
    starts += [f"rla.cell.{key}.reset_norm." for key in cells_at_h0(model)]
    if config.update == "split" and config.norm == "none" and config.cell in ("conv", "dwconv"):
        starts += [f"rla.cell.{key}." for key in cells_at_h0(model)]
    if config.initial_state == "zeros":
        starts += [f"rla.inject.{i}{end}" for i in first for end in "._"]
    if per_channel(config) and averaged_away(model):
        stage = model.plan.stages[-1]
        last = len(blocks) - len(stage.blocks)
        starts += [
            "rla.head.",
            f"rla.input.{stage.index}_",
            f"rla.cell.{stage.index}.",
            "rla.cell.0.",
        ]
        starts += [
            f"rla.{part}.{i}." for i in range(last, len(blocks)) for part in ("block", "input")
        ]
    return {n for n, _ in model.named_parameters() if n.startswith(tuple(starts))}


def per_channel(config: rlawrap.RLAConfig) -> bool:
    """Whether the norms of h take each channel of an image alone."""
    return config.norm == "instance" or (config.k == 1 and config.norm in ("group", "layer"))


def cells_at_h0(model: rlawrap.RLAModel) -> set[str]:
    """Keys of the cells that only ever update h^0."""
    users: dict[str, list[bool]] = {}
    index, updating = 0, updates(model)
    for stage in model.plan.stages:
        for _ in stage.blocks:
            keys = {"stage": stage.index, "network": 0, "none": index}
            if index in updating:
                starts = parent(model, index) is None
                users.setdefault(str(keys[model.config.share]), []).append(starts)
            index += 1
    return {key for key, starts in users.items() if all(starts)}


def parent(model: rlawrap.RLAModel, index: int) -> int | None:
    """The block whose hidden state a block reads."""
    after = model.plan.blocks[index].after
    if after == "previous":
        return index - 1 if index else None
    return after


def updates(model: rlawrap.RLAModel) -> set[int]:
    """The blocks that update h: what a later block or the head reads."""
    parts = dict(model.rla.named_children())
    entered = {int(name.partition("_")[0]) for name in parts.get("inject", {})}
    needed = {len(model.plan.blocks) - 1} if "head" in parts else set()
    for index in reversed(range(len(model.plan.blocks))):
        before = parent(model, index)
        if before is not None and index in entered | needed:
            needed.add(before)
    return needed


def averaged_away(model: rlawrap.RLAModel) -> bool:
    """Whether some path to the classifier averages right behind a norm."""
    head = model.rla.head if "head" in dict(model.rla.named_children()) else None
    if head is None:
        return False
    before = [n for n, _ in head.named_children() if n in ("norm", "act")]
    for path in head.join.values():
        names = before + [name for name, _ in path.named_children()]
        for a, b in pairwise(names):
            if a.startswith("norm") and not b.startswith(("act", "norm")):
                return True
    return False
