"""`capture`: nn.Module -> its traces in both modes, with the shapes of every value."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from rlawrap.capture.arguments import image_of, make_arguments
from rlawrap.capture.compare import confirm, pin, second_axis_escapes
from rlawrap.capture.late_imports import with_late_imports
from rlawrap.capture.leaves import Leaves, as_leaves
from rlawrap.capture.overwrites import relink
from rlawrap.capture.probes import Shape, candidate_inputs
from rlawrap.capture.recording import ForwardFailed, described, place_of, record
from rlawrap.capture.refusals import refuse_wrapped
from rlawrap.capture.shadow import Shadow, make_shadow
from rlawrap.capture.shapes import (
    Shapes,
    keeps_images_apart,
    measure,
    propagate,
    values_at,
)
from rlawrap.capture.trace import CannotFollow, Trace
from rlawrap.capture.unify import unify
from rlawrap.errors import PlanError, TraceError, for_whole


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
    #: Of the notes those on modules that were kept whole by themselves.
    whole: tuple[str, ...]
    example: Any
    #: The axes of the image that the recording is of one size along.
    fixed: tuple[int, ...] = ()


def capture(
    model: nn.Module,
    *,
    leaf_modules: Iterable[type | str] = (),
    example_input: Any = None,
    call: str = "inspect(model)",
) -> Capture:
    """Record a shadow of `model` in both modes and measure every shape; the model is untouched.

    Raises `PlanError` for a wrapped model or one that runs at no size tried, `TraceError` where
    its forward cannot be followed.
    """
    refuse_wrapped(model, call)
    asked = as_leaves(leaf_modules)
    _check_paths(model, asked)
    return with_late_imports(model, lambda: _captured(model, asked, example_input))


def _captured(model: nn.Module, asked: tuple[type | str, ...], example: Any) -> Capture:
    shadow = make_shadow(model)
    unfollowed: dict[str, CannotFollow] = {}
    kept: set[tuple[str, str]] = set()
    while True:
        recording = _Recording(shadow, Leaves(asked, unfollowed), example, kept)
        try:
            found = recording.captured(unfollowed)
        except CannotFollow as reason:
            if not reason.path or reason.path in unfollowed:
                raise _refusal(reason, shadow.root, whole=reason.path in unfollowed) from reason
            unfollowed[reason.path] = reason
            continue
        # What forward keeps from call to call may show only at the second size.
        if recording.kept == kept:
            return found
        kept = recording.kept


@dataclass(frozen=True)
class _Recorded:
    """A network recorded in both modes at a size, and what its graph gives there."""

    evaluated: Trace
    trained: Trace
    shape: Shape
    env: dict[fx.Node, Any]


class _Recording:
    """Records one network: at a size that it takes, again at others, in both modes."""

    def __init__(
        self, shadow: Shadow, leaves: Leaves, example: Any, kept: Collection[tuple[str, str]]
    ) -> None:
        self.shadow, self.leaves, self.example = shadow, leaves, example
        #: Attributes (module path, name) that forward keeps something in from call to call.
        self.kept = set(kept)

    def at(self, shape: Shape, *, training: bool) -> Trace:
        """The network recorded for images of a shape."""
        try:
            trace = self._run(shape, training)
        except ForwardFailed as problem:
            # The names that stand for Python's numbers are no types that torch takes: `dtype=int`.
            if isinstance(problem.error, TypeError):
                trace = self._run(shape, training, numbers=False)
            elif self.example is not None:
                # As many rows as the example has images may be chance, of one image above all.
                trace = self._run(shape, training, images_alone=True)
            else:
                raise
        self.kept.update(trace.kept)
        return trace

    def _run(
        self, shape: Shape, training: bool, *, numbers: bool = True, images_alone: bool = False
    ) -> Trace:
        arguments = make_arguments(self.shadow, self.example, shape, images_alone=images_alone)
        return record(
            self.shadow,
            arguments,
            training=training,
            leaves=self.leaves,
            numbers=numbers,
            kept=self.kept,
        )

    def at_some_size(self) -> _Recorded:
        """Recorded at the size of the example, or at the first that the network takes."""
        root = self.shadow.root
        if self.example is not None:
            tries = [tuple(image_of(self.example).shape)]
        else:
            tries = candidate_inputs(root)
        failure = ""
        folded: _Recorded | None = None
        first_read = tries[0][1], len(tries[0])
        while tries:
            shape = tries.pop(0)
            try:
                evaluated, trained = (self.at(shape, training=mode) for mode in (False, True))
            except ForwardFailed as problem:
                failure = failure or f"at input {tuple(shape)}: {_told(problem, root)}"
                conv = problem.first_convolution
                if self.example is None and conv is not None:
                    reads = conv.in_channels, len(conv.kernel_size) + 2
                    if reads != first_read:
                        tries, first_read = candidate_inputs(root, conv), reads
                continue
            env, error = propagate(evaluated, values_at(evaluated, self.example, shape))
            if error is not None:
                failure = failure or f"at input {tuple(shape)}: {error}"
                continue
            found = _Recorded(evaluated, trained, shape, env)
            if keeps_images_apart(evaluated, env, shape[0]):
                return found
            folded = folded or found
        if folded is not None:
            return folded
        if self.example is not None:
            raise PlanError(f"{type(root).__name__} does not run on example_input=; {failure}.")
        raise for_whole(
            PlanError,
            f"{type(root).__name__} runs at none of the sizes tried; {failure}. Pass "
            "`example_input=x`, where x is a tensor (or a tuple, or a dict by name) that it "
            "accepts.",
        )

    def fixed_axes(self, trace: Trace, shape: Shape) -> list[int]:
        """The axes of the image that the recording is of one size alone."""
        mode = trace.training

        def again(other: Shape) -> Trace:
            return self.at(other, training=mode)

        batch, spatial = confirm(trace, shape, again)
        fixed = [] if batch else [0]
        if second_axis_escapes(trace, shape, again):
            fixed.append(1)
        return fixed if spatial else [*fixed, *range(2, len(shape))]

    def captured(self, unfollowed: Mapping[str, CannotFollow]) -> Capture:
        """The capture: its sizes confirmed, its modes in one graph or in two."""
        found = self.at_some_size()
        evaluated, trained, shape = found.evaluated, found.trained, found.shape
        fixed = self.fixed_axes(evaluated, shape)
        one = unify(evaluated, trained) is not None
        if not one:
            fixed = sorted({*fixed, *self.fixed_axes(trained, shape)})
        for trace in [evaluated] if one else [evaluated, trained]:
            if fixed:
                pin(trace, shape, fixed)
            relink(trace)
        env, held = None if fixed else found.env, bool(fixed)
        shapes, notes = measure(evaluated, self.example, shape, env, held=held)
        training_shapes = None if one else measure(trained, self.example, shape)[0]
        notes += _fixed_notes(fixed, shape)
        whole = [f"kept whole: {path}, it {reason.what}" for path, reason in unfollowed.items()]
        return Capture(
            trace=evaluated,
            shapes=shapes,
            training=None if one else trained,
            training_shapes=training_shapes,
            notes=(*notes, *whole),
            whole=tuple(whole),
            unset=tuple(dict.fromkeys((*evaluated.unset, *trained.unset))),
            example=self.example,
            fixed=tuple(fixed),
        )


def _fixed_notes(fixed: list[int], shape: Shape) -> list[str]:
    notes = []
    if 0 in fixed:
        notes.append(
            f"the network takes batches of {shape[0]} alone, and so does the rewritten one"
        )
    if 1 in fixed:
        notes.append(
            f"the network was recorded for {shape[1]} along its second axis, and the rewritten one "
            "takes no other number"
        )
    if set(fixed) - {0, 1}:
        size = "x".join(map(str, shape[2:]))
        notes.append(
            f"the network was recorded at {size}, and the rewritten one takes no other size"
        )
    return notes


def _told(problem: ForwardFailed, root: nn.Module) -> str:
    lines = str(problem.error).splitlines()
    message = lines[0].rstrip(".") if lines else type(problem.error).__name__
    mode = "in training mode, " if problem.training else ""
    return f"{mode}{described(problem.path, root)}: {message}"


def _refusal(reason: CannotFollow, root: nn.Module, *, whole: bool) -> TraceError:
    """Name the module and the line where recording stopped; `whole`: though it was kept whole."""
    where = described(reason.path, root)
    text = f"{where}{place_of(reason)} {reason.what}."
    otherwise = (
        "" if whole else "Move that part into a module of its own, which is then kept whole."
    )
    return for_whole(TraceError, text, otherwise)


def _check_paths(model: nn.Module, leaves: tuple[type | str, ...]) -> None:
    """Raise `PlanError` for a path in `leaf_modules=` that the model does not have."""
    paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
    for leaf in leaves:
        if isinstance(leaf, str) and leaf not in paths:
            near = difflib.get_close_matches(leaf, paths, n=4)
            hint = f" Paths near it: {', '.join(near)}." if near else ""
            raise PlanError(f"leaf_modules=: the model has no module {leaf!r}.{hint}")
