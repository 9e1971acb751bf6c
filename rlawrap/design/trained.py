"""Layers that train mode runs otherwise than eval mode: joined where they run, or left out."""

from __future__ import annotations

from itertools import takewhile

from torch import nn

from rlawrap.design.design import Design, Entry
from rlawrap.design.head import head_path, without_idle_slope
from rlawrap.design.paths import Path, PathMaker
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced


def fit_training(design: Design, traced: Traced) -> None:
    """Give each head that train mode runs elsewhere its way there, and note what has none.

    Both ways begin with the same layers and end in one, and these hold all that h learns there;
    between them each mode pools and flattens h as it does x.
    """
    if traced.training is None:
        return
    refs = References(traced.training.trace)
    _fit_detaching(design, traced.training, refs)
    for step in design.steps:
        for entry in step.entries:
            if refs.find(entry.target) is None:
                design.notes.append(
                    f"{step.block.path}: in training mode h does not enter {entry.target}, which "
                    "eval mode alone computes so"
                )
    for entry in design.head:
        if refs.find(entry.target) is not None:
            continue
        problem = _other_way(design, traced, refs, entry)
        if problem:
            design.notes.append(f"head: in training mode h does not join {entry.target}: {problem}")


def _fit_detaching(design: Design, training: Flow, refs: References) -> None:
    """Detach h where train mode reads a detached value: gradients are asked for there."""
    starts = [(entry, step.input) for step in design.steps for entry in step.entries]
    blocks = design.plan.blocks
    for entry, source in [*starts, *((e, blocks[e.after].output) for e in design.head)]:
        layer, start = refs.find(entry.target), refs.find(source)
        layer = training.trace.elsewhere.get(entry.target) if layer is None else layer
        if layer is not None and start is not None:
            entry.detached = training.severed(layer, start)


def _other_way(design: Design, traced: Traced, refs: References, entry: Entry) -> str:
    """Give a head its way in train mode; why it has none."""
    assert traced.training is not None
    layer = traced.training.trace.elsewhere.get(entry.target)
    if layer is None:
        return "eval mode alone computes it"
    maker = PathMaker(traced.training, design.config.k, design.config.norm)
    path = head_path(maker, layer, refs.node(design.plan.blocks[entry.after].output))
    if path.problem:
        return path.problem
    if path.readings:
        return "h would be brought there to a size of train mode's own"
    path = without_idle_slope(path, design.head_act)
    built = entry.path.build()
    *before, last = path.build()
    *evaluated, end = built
    pairs = zip(before, evaluated, strict=False)
    both = len([*takewhile(lambda pair: repr(pair[0]) == repr(pair[1]), pairs)])
    learns = any(True for m in (*before[both:], *evaluated[both:]) for _ in m.parameters())
    if learns or repr(last) != repr(end):
        return "h learns otherwise on its way there"
    entry.shared = tuple(built._modules)[:both]
    entry.trained = Path(layer, path.layers[both:-1])
    return ""


def last_name(path: Path) -> str:
    """The name of a path's last layer in the module that it builds."""
    built: nn.Sequential = path.build()
    return list(built._modules)[-1]
