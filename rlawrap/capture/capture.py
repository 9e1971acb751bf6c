"""`capture`: nn.Module -> its traces in both modes, with the shapes of every value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from rlawrap._torch import FakeTensorMode
from rlawrap.capture.conditions import Conditions
from rlawrap.capture.leaves import as_leaves
from rlawrap.capture.overwrites import relink
from rlawrap.capture.refusals import refuse_wrapped
from rlawrap.capture.shadow import make_shadow
from rlawrap.capture.shapes import Shapes, measure, measure_at
from rlawrap.capture.trace import Trace
from rlawrap.capture.tracing import trace_graph
from rlawrap.capture.unify import unify
from rlawrap.errors import PlanError


@dataclass(frozen=True)
class Capture:
    """What was recorded of a network: one trace that serves both modes, or one for each.

    `notes` is what a plan should say of it, `unset` the notes on attributes that forward set.
    """

    trace: Trace
    shapes: Shapes
    training: Trace | None
    training_shapes: Shapes | None
    notes: tuple[str, ...]
    unset: tuple[str, ...]
    example: Any


def capture(
    model: nn.Module,
    *,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
    call: str = "inspect(model)",
) -> Capture:
    """Trace a shadow of `model` in both modes and measure every shape; the model is untouched.

    Raises `PlanError` for a wrapped model or one that runs at no size tried, `TraceError` where
    its forward cannot be followed.
    """
    refuse_wrapped(model, call)
    leaves = as_leaves(leaf_modules)
    _check_paths(model, leaves)
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
    shadow = make_shadow(model, fake_mode)
    given = list(example_input) if isinstance(example_input, dict) else []
    settings: dict[str, Any] = {
        "leaf_modules": leaves,
        "given": given,
        "conditions": partial(Conditions, example=example_input),
    }
    evaluated = trace_graph(shadow, fake_mode, training=False, **settings)
    trained = trace_graph(shadow, fake_mode, training=True, **settings)
    unset = tuple(dict.fromkeys((*evaluated.unset, *trained.unset)))
    one = unify(evaluated, trained) is not None
    relink(evaluated)
    if not one:
        relink(trained)
    shapes, notes = measure(evaluated, example_input, also=None if one else trained)
    training_shapes = None
    if not one and example_input is None:
        training_shapes = measure_at(trained, shapes.inputs[0])
    elif not one:
        training_shapes = measure(trained, example_input)[0]
    return Capture(
        trace=evaluated,
        shapes=shapes,
        training=None if one else trained,
        training_shapes=training_shapes,
        notes=tuple(notes),
        unset=unset,
        example=example_input,
    )


def _check_paths(model: nn.Module, leaves: tuple[type | str, ...]) -> None:
    """Raise `PlanError` for a path in `leaf_modules=` that the model does not have."""
    paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
    for leaf in leaves:
        if isinstance(leaf, str) and leaf not in paths:
            near = difflib.get_close_matches(leaf, paths, n=4)
            hint = f" Paths near it: {', '.join(near)}." if near else ""
            raise PlanError(f"leaf_modules=: the model has no module {leaf!r}.{hint}")
