"""Shadow -> Trace: one call recorded, and what its forward did that no graph does again."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Collection, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from rlawrap._torch import pytree
from rlawrap.capture.arguments import Arguments, Inputs, image_of
from rlawrap.capture.effects import Attributes, random_generators_kept, random_states, refill
from rlawrap.capture.leaves import Leaves
from rlawrap.capture.method_calls import methods_recorded
from rlawrap.capture.modes import modes_asked
from rlawrap.capture.outputs import output_of
from rlawrap.capture.patches import patched
from rlawrap.capture.recorder import DRAWS, Recorder
from rlawrap.capture.shadow import Shadow
from rlawrap.capture.sizes import stored
from rlawrap.capture.trace import CannotFollow, Trace


class ForwardFailed(Exception):
    """The network itself raised an error; `path` is the innermost module that ran."""

    def __init__(self, recorder: Recorder, error: Exception) -> None:
        super().__init__(str(error))
        self.path = recorder.failed
        self.error = error
        self.training = recorder.shadow.root.training
        #: The convolution that ran first.
        self.first_convolution = recorder.first_convolution


def record(
    shadow: Shadow,
    arguments: Arguments,
    *,
    training: bool,
    leaves: Leaves,
    numbers: bool = True,
    kept: Collection[tuple[str, str]] = (),
) -> Trace:
    """Record a call of `shadow` in one mode; the shadow is left as it was.

    Without `numbers` the network's code computes with sizes as plain numbers. `kept` names
    attributes (module path, name) in which forward keeps something from call to call.
    Raises `CannotFollow` for what no graph does, `ForwardFailed` for the network's own errors.
    """
    root = shadow.root
    root.train(training)
    recorder = Recorder(shadow, leaves)
    for keeper in shadow.keepers:
        keeper.place = recorder.out_of_call
    inputs = Inputs(recorder.graph, recorder.made, recorder.tensors.know)
    attributes = Attributes(root)
    image = image_of((arguments.args, arguments.kwargs))  # before forward writes into a list
    try:
        recorder.tensors.stored = _take_for_stored(root, kept)
        recorder.terms.inputs = inputs.write(arguments)
        with (
            random_generators_kept(),
            torch.enable_grad(),
            patched(recorder, numbers=numbers),
            modes_asked(lambda: not recorder.paused) as asked,
            methods_recorded(root, recorder.last_node, recorder.nodes.nodes_of) as methods,
        ):
            _run(recorder, root, arguments)
    finally:
        for keeper in shadow.keepers:
            keeper.place = nullcontext
        plain, others = attributes.undo(whole=recorder.whole_paths())
    _refuse_replaced(others)
    return Trace(
        shadow,
        recorder.graph,
        recorder.stacks,
        recorder.calls,
        recorder.leaf_frames,
        training,
        recorder.places,
        modes={p: asked[id(m)] for p, m in root.named_modules() if p and id(m) in asked},
        constants=recorder.tensors.constants,
        attributes=recorder.tensors.attributes,
        unset=_told(plain, root),
        kept=tuple(plain),
        methods=methods,
        user_leaves=leaves.asked_for,
        images=inputs.images,
        inputs=len(recorder.terms.inputs),
        image=recorder.tensors.node(image),
    )


def _take_for_stored(root: nn.Module, kept: Collection[tuple[str, str]]) -> set[int]:
    """Let no size of this call equal what an earlier one left in some attributes.

    Returns the tensors among it, by their ids; their sizes are such, too.
    """
    tensors: set[int] = set()
    for path, name in kept:
        space = vars(root.get_submodule(path))
        if name in space:
            before, space[name] = space[name], stored(space[name])
            if isinstance(before, (list, dict)) and space[name] is not before:
                refill(before, space[name])  # others may hold it, too
                space[name] = before
            leaves = pytree.tree_leaves(space[name])
            tensors |= {id(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
    return tensors


def _refuse_replaced(others: Sequence[tuple[str, str]]) -> None:
    """Raise `CannotFollow` for a buffer, parameter or module that forward gave another value."""
    for path, name in others:
        raise CannotFollow(
            path,
            f"gives its buffer, parameter or module {name!r} another value, which a traced graph "
            "does not do (write into it: copy_, add_, +=)",
        )


def _told(plain: Sequence[tuple[str, str]], root: nn.Module) -> tuple[str, ...]:
    """What is said of attributes that forward sets."""
    return tuple(
        f"{described(path, root)} sets its attribute {name!r}, which the rewritten network leaves "
        "as it was when it was rewritten"
        for path, name in plain
    )


def _run(recorder: Recorder, root: nn.Module, arguments: Arguments) -> None:
    states, handled = random_states(), sys.exc_info()[1]
    recorder.begin()
    try:
        with recorder.modes.counting(), recorder:
            out = type(root).forward(root, *arguments.args, **arguments.kwargs)
        if random_states() != states:
            raise recorder.lost(DRAWS)
        result = output_of(
            out, recorder.tensors.holder, recorder.nodes.arg, recorder.function, recorder.lost
        )
        if recorder.reason is not None:
            raise recorder.reason
    except CannotFollow:
        raise
    except Exception as error:
        inner = _cannot_follow(error, handled)
        if inner is not None:
            raise inner from error
        raise ForwardFailed(recorder, error) from error
    recorder.graph.output(result)


def _cannot_follow(
    error: BaseException | None, handled: BaseException | None
) -> CannotFollow | None:
    """The reason behind an error: forward may have caught one and raised another.

    `handled` was being handled as the recording began: a refusal of another network, perhaps.
    """
    while error is not None and error is not handled:
        if isinstance(error, CannotFollow):
            return error
        error = error.__cause__ or error.__context__
    return None


def described(path: str, root: nn.Module) -> str:
    """A module in words."""
    owner = type(root.get_submodule(path)).__name__
    return f"module {path!r} ({owner})" if path else f"the forward of {owner}"


def place_of(error: BaseException) -> str:
    """The line of the network's own code that an error comes from, in words."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if "/torch/" not in f.filename and "rlawrap" not in f.filename]
    if not outside:
        return ""
    line = f" ({outside[-1].line})" if outside[-1].line else ""
    return f" at {outside[-1].filename}:{outside[-1].lineno}{line}"
