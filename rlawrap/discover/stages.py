"""Blocks into stages, and for each block the one whose hidden state it reads."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import fx

from rlawrap.discover.wiring import Wired
from rlawrap.errors import PlanError
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.geometry import route

StageChoice = Sequence[int | str | Sequence[str]]


def link(flow: Flow, blocks: list[Wired]) -> list[int | None]:
    """For each block, the index of the block whose h it reads; None starts from h^0.

    The block that ran before it, where h can be brought to the size it needs by the pooling that
    x went through. In parallel branches the latest block of that size, then the latest from which
    the size is reached by pooling, then the one before, resized. Never a block that saw an input of
    the network which this one did not: two images through one network are two chains.
    Nor one whose convolutions it reads detached alone: by h its gradient would reach them.
    """
    inputs = [flow.inputs(block.input) for block in blocks]
    seen = [flow.inputs(block.output) for block in blocks]
    parents: list[int | None] = []
    for i, block in enumerate(blocks):
        goal = block.input
        begin = min([flow.position[e] for e in block.entries] or [flow.position[block.output]])
        ready = (
            j
            for j in reversed(range(i))
            if flow.position[blocks[j].output] < begin
            and seen[j] <= inputs[i]
            and not flow.severed(goal, blocks[j].output)
        )
        parents.append(_parent(flow, blocks, goal, ready))
    return parents


def _parent(flow: Flow, blocks: list[Wired], goal: fx.Node, ready: Iterator[int]) -> int | None:
    """Whose h a block that reads `goal` reads, of those that are `ready`, the latest first."""
    latest = next(ready, None)
    if latest is None or route(flow, blocks[latest].output, goal) is not None:
        return latest
    others = [latest, *ready]
    for j in others[1:]:
        if route(flow, blocks[j].output, goal) is not None:
            return next((s for s in others if flow.same_size(blocks[s].output, goal)), j)
        if j < latest - 64:
            break
    return latest


def group(flow: Flow, blocks: list[Wired], choice: StageChoice | None) -> list[list[int]]:
    """Indices of the blocks of each stage: runs of one resolution, or as the user says."""
    if choice is None:
        stages: list[list[int]] = []
        for i, block in enumerate(blocks):
            if i == 0 or not flow.same_size(blocks[i - 1].output, block.output):
                stages.append([])
            stages[-1].append(i)
        return stages
    return _chosen(blocks, choice)


def _chosen(blocks: list[Wired], choice: StageChoice) -> list[list[int]]:
    """`stages=`: block counts that add up, or a glob (or list of paths) for each stage."""
    paths = [b.found.path for b in blocks]
    if isinstance(choice, str) or not isinstance(choice, Sequence):
        raise PlanError(
            f"stages={choice!r}: give a list, of block counts or a glob for each stage."
        )
    if all(isinstance(item, int) for item in choice):
        counts = [int(item) for item in choice]  # type: ignore[arg-type]
        if min(counts, default=0) < 1:
            raise PlanError(f"stages={list(choice)!r}: a stage has at least one block.")
        if sum(counts) != len(blocks):
            raise PlanError(
                f"stages={list(choice)!r} makes {sum(counts)} blocks, "
                f"the network has {len(blocks)}."
            )
        bounds = [sum(counts[:i]) for i in range(len(counts) + 1)]
        return [list(range(a, b)) for a, b in pairwise(bounds)]
    stages: list[list[int]] = [[] for _ in choice]
    for i, path in enumerate(paths):
        hits = [s for s, item in enumerate(choice) if _named(path, item)]
        if len(hits) != 1:
            raise PlanError(
                f"stages={list(choice)!r}: {len(hits)} of them name block {path!r}, not one."
            )
        stages[hits[0]].append(i)
    empty = [item for item, stage in zip(choice, stages, strict=True) if not stage]
    if empty:
        raise PlanError(f"stages=: {empty} names no block; the blocks are {paths}.")
    order = [i for stage in stages for i in stage]
    if order != sorted(order):
        raise PlanError(
            f"stages={list(choice)!r} does not follow the order the blocks run in: {paths}."
        )
    return stages


def _named(path: str, item: object) -> bool:
    if isinstance(item, str):
        return fnmatch.fnmatchcase(path, item) or path.startswith(item.rstrip(".") + ".")
    if isinstance(item, Sequence):
        return any(_named(path, part) for part in item)
    raise PlanError(f"stages=: {item!r} is neither a number of blocks, a glob nor a list of paths.")
