"""`trace_model`: a network's captured traces, read as data flows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from rlawrap.capture.capture import capture
from rlawrap.capture.shapes import same_shapes
from rlawrap.capture.trace import Trace
from rlawrap.flow.alike import name_alike
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.several import of_several_inputs


@dataclass(frozen=True)
class Traced:
    """The data flow of a network: one that serves both modes, or one for each where they differ."""

    flow: Flow
    training: Flow | None
    notes: tuple[str, ...]
    example: Any = None
    #: Of the notes those on modules that were kept whole by themselves.
    whole: tuple[str, ...] = ()
    #: Notes that `apply` warns of.
    warnings: tuple[str, ...] = ()
    #: The axes of the image that the recording is of one size along.
    fixed: tuple[int, ...] = ()

    @property
    def trace(self) -> Trace:
        return self.flow.trace


def trace_model(
    model: nn.Module,
    *,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
    call: str = "inspect(model)",
) -> Traced:
    """Capture `model` in both modes and find its data flow; the model is untouched.

    Raises `PlanError` and `TraceError` as `capture` does.
    """
    found = capture(model, leaf_modules=leaf_modules, example_input=example_input, call=call)
    flow = Flow(found.trace, found.shapes)
    training = None
    notes = list(found.notes)
    warned = tuple(dict.fromkeys((*found.unset, *of_several_inputs(flow))))
    notes += warned
    if found.training is not None and found.training_shapes is not None:
        shapes, training_shapes = found.shapes, found.training_shapes
        name_alike(
            found.trace,
            found.training,
            lambda a, b: same_shapes(shapes.rows(a), training_shapes.rows(b)),
        )
        training = Flow(found.training, found.training_shapes)
        notes.append("training mode runs another graph than eval mode; both are rewritten")
    return Traced(flow, training, tuple(notes), found.example, found.whole, warned, found.fixed)
