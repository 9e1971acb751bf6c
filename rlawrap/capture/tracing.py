"""Shadow -> Trace: its graph in one mode, and what its forward did that no graph does again."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import fx, nn

from rlawrap._torch import FakeTensorMode
from rlawrap.capture.effects import Attributes, random_generators_kept
from rlawrap.capture.method_calls import methods_recorded
from rlawrap.capture.modes import modes_asked
from rlawrap.capture.trace import Trace
from rlawrap.capture.tracer import RLATracer
from rlawrap.errors import TraceError


def trace_graph(
    shadow: nn.Module,
    fake_mode: FakeTensorMode,
    *,
    training: bool,
    leaf_modules: Iterable[type | str] = (),
    given: Iterable[str] = (),
    conditions: Callable[[Trace], Answers] | None = None,
) -> Trace:
    """Trace `shadow` in one mode. `given` names optional arguments that the user's input sets.

    `conditions` makes what answers a forward's questions about shapes.
    """
    shadow.train(training)
    tracer = RLATracer(leaf_modules)
    if conditions is not None:
        tracer.answer = _answering(tracer, shadow, fake_mode, conditions)
    before = set(shadow.__dict__)
    attributes = Attributes(shadow)
    try:
        with (
            random_generators_kept(),
            modes_asked(lambda: not tracer.answering) as asked,
            methods_recorded(shadow, tracer.last_node) as methods,
        ):
            graph = tracer.trace(shadow, dict.fromkeys(given))
    except Exception as error:
        raise _explain(error, tracer, shadow) from error
    finally:
        plain, others = attributes.undo()
    _refuse(tracer, shadow, others)
    constants = {
        name: value
        for name, value in shadow.__dict__.items()
        if name not in before and isinstance(value, torch.Tensor)
    }
    unset = tuple(
        f"{_named(path, shadow)} sets its attribute {name!r}, which the rewritten network leaves "
        "as it was when it was rewritten"
        for path, name in plain
    )
    return Trace(
        shadow,
        graph,
        tracer.stacks,
        tracer.calls,
        tracer.leaf_frames,
        fake_mode,
        training,
        tracer.places,
        modes={p: asked[id(m)] for p, m in shadow.named_modules() if p and id(m) in asked},
        constants=constants,
        unset=unset,
        methods=methods,
        user_leaves=tracer.user_leaves,
    )


def _answering(
    tracer: RLATracer,
    shadow: nn.Module,
    fake_mode: FakeTensorMode,
    conditions: Callable[[Trace], Answers],
) -> Callable[[fx.Node, Callable[[Any], Any]], Any]:
    """Answers from the graph so far; what gives them is made for the first question."""
    made: list[Answers] = []

    def answer(node: fx.Node, read: Callable[[Any], Any]) -> Any:
        if not made:
            mode = shadow.training
            begun = Trace(shadow, tracer.graph, tracer.stacks, {}, {}, fake_mode, mode)
            made.append(conditions(begun))
        return made[0].answer(node, read)

    return answer


def _refuse(tracer: RLATracer, shadow: nn.Module, others: list[tuple[str, str]]) -> None:
    """Raise `TraceError` for what the forward did besides computing and a graph would not do."""
    if tracer.frozen is not None:
        path, what = tracer.frozen
        raise TraceError(f"{_named(path, shadow)} {what}: {_whole(path)}.")
    if others:
        path, name = others[0]
        raise TraceError(
            f"{_named(path, shadow)} gives its buffer, parameter or module {name!r} another value, "
            "which a traced graph does not do: write into it (copy_, add_, +=), or "
            f"{_whole(path)}."
        )


class Answers(Protocol):
    """What answers a forward's questions about shapes while it is traced."""

    def answer(self, node: fx.Node, read: Callable[[Any], Any]) -> Any:
        """What `read` makes of the value of a node."""


def _named(path: str, root: nn.Module) -> str:
    owner = type(root.get_submodule(path)).__name__
    return f"module {path!r} ({owner})" if path else f"the forward of {owner}"


def _whole(path: str) -> str:
    if path:
        return f"keep it whole with leaf_modules=[{path!r}]"
    return "move that part into a module of its own and name it in leaf_modules="


def _explain(error: Exception, tracer: RLATracer, root: nn.Module) -> TraceError:
    """Name the module, the file and the line where tracing stopped, and what to call next."""
    path = tracer.stack[-1][0] if tracer.stack else ""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if "/torch/" not in f.filename and "rlawrap" not in f.filename]
    place = f" at {outside[-1].filename}:{outside[-1].lineno}" if outside else ""
    line = f" (`{outside[-1].line}`)" if outside and outside[-1].line else ""
    owner = type(root.get_submodule(path)).__name__
    where = _named(path, root)
    advice = (
        f"keep that module whole with leaf_modules=[{path!r}] or leaf_modules=[{owner}]"
        if path
        else "move the part that depends on values into a module of its own and name it in "
        "leaf_modules="
    )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return TraceError(
        f"torch.fx cannot follow {where}{place}{line}: {reason}. "
        f"Then {advice}; blocks= chooses the block modules by hand."
    )
