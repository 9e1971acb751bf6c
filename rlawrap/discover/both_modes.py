"""Blocks that the two modes run unlike: h runs through all calls of a block, or through none."""

from __future__ import annotations

import warnings
from collections import Counter

from torch import fx, nn

from rlawrap.capture.trace import Frame
from rlawrap.discover.found import Found
from rlawrap.discover.parts import part_advice
from rlawrap.errors import PlanError, RLAWarning
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.traced import Traced

#: Why a block is left out.
ALONE = "eval mode alone computes it"


def of_both_modes(traced: Traced, found: list[Found]) -> tuple[list[Found], list[str]]:
    """The blocks that train mode runs too, and the paths of the others.

    Raises `PlanError` where one mode runs blocks more often than the other (two views in training,
    the mean over flips in eval mode) and a part can be rewritten alone, so that h runs through all
    of its calls, and where train mode runs no block. Where no part can be, an `RLAWarning` says it.
    """
    if traced.training is None:
        return found, []
    evaluated, trained = _calls(traced.flow), _calls(traced.training)
    count = Counter(path for path, _ in evaluated), Counter(path for path, _ in trained)
    frames = {block: _frames(traced.flow, block) for block in found}
    unlike = [
        path
        for path in dict.fromkeys(path for own in frames.values() for path, _ in own)
        if count[1][path] and count[0][path] != count[1][path]
    ]
    if unlike:
        _tell(traced.flow.trace.root, unlike[0], count[0][unlike[0]], count[1][unlike[0]])
    gone = [block for block, own in frames.items() if own and not trained.intersection(own)]
    if found and len(gone) == len(found):
        root = traced.flow.trace.root
        raise PlanError(
            f"{type(root).__name__} has blocks in eval mode alone, such as {gone[0].path}: "
            f"training mode computes none of them.{part_advice(root)}"
        )
    return [block for block in found if block not in gone], [block.path for block in gone]


def of_eval_mode(traced: Traced) -> frozenset[fx.Node]:
    """The convolutions and linear layers of eval mode that train mode never calls."""
    if traced.training is None:
        return frozenset()
    trained = {path for path, _ in _calls(traced.training)}
    frames = traced.flow.trace.leaf_frames
    layers = (n for n in traced.flow.nodes if traced.flow.ops.conv(n) is not None and n in frames)
    return frozenset(n for n in layers if frames[n][0] not in trained)


def _calls(flow: Flow) -> set[Frame]:
    """The calls of modules on the way to the output."""
    trace = flow.trace
    alive = [node for node in flow.nodes if node in flow.data and flow.alive(node)]
    around = {frame for node in alive for frame in trace.stacks.get(node, ()) if frame[0]}
    return around | {trace.leaf_frames[node] for node in alive if node in trace.leaf_frames}


def _frames(flow: Flow, block: Found) -> list[Frame]:
    """The call that a block is, and those of the layers in it that convolve."""
    own = [block.frame] if block.frame is not None and block.frame[0] else []
    convs = (node for node in block.nodes if flow.ops.conv(node) is not None)
    layers = (flow.trace.leaf_frames.get(node) for node in convs)
    return [*own, *(frame for frame in layers if frame is not None)]


def _tell(root: nn.Module, path: str, evaluated: int, trained: int) -> None:
    problem = (
        f"{type(root).__name__} calls {path} {trained} times in training mode and {evaluated} in "
        "eval mode: h would not run through all of them"
    )
    advice = part_advice(root)
    if advice:
        raise PlanError(f"{problem}.{advice}")
    warnings.warn(f"{problem}; the others are the network without h.", RLAWarning, stacklevel=6)
