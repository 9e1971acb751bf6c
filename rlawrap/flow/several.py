"""Networks of several inputs: what one hidden state cannot do for them, in words."""

from __future__ import annotations

from torch import fx

from rlawrap._torch import pytree
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.vocabulary import holds_convolution

#: The axes of a batch of signals; what has fewer is no image (labels, a time step).
MINIMAL_RANK = 3


def of_several_inputs(flow: Flow) -> list[str]:
    """What the user should know of modules that run once an input."""
    images = {
        flow.trace.images[n] for n in flow.images if len(flow.shapes.of(n) or ()) >= MINIMAL_RANK
    }
    if len(images) < 2:
        return []
    return [
        f"module {path!r} runs once for each of {count} inputs, and every run has other layers for "
        "h, or none; to have the same for all, rewrite that module alone: "
        f"`rlawrap.apply(model, at={path!r})`"
        for path, count in _towers(flow).items()
    ]


def _towers(flow: Flow) -> dict[str, int]:
    """Outermost modules with convolutions that run on unlike inputs, and how many runs."""
    runs: dict[str, set[frozenset[str]]] = {}
    for (path, _), call in flow.trace.calls.items():
        for node in pytree.tree_leaves(call.output):
            if isinstance(node, fx.Node) and node in flow.data:
                runs.setdefault(path, set()).add(flow.inputs(node))
    several = {
        path: len(kinds)
        for path, kinds in runs.items()
        if path and len(kinds) > 1 and holds_convolution(flow.trace.module(path))
    }
    return {
        path: count
        for path, count in several.items()
        if not any(path.startswith(f"{other}.") for other in several)
    }
