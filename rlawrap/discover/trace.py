"""model -> Trace: its graph in eval and in train mode, on a shadow that owns no memory.

The user's model is never traced itself. A *shadow* of it is: the same modules and attributes, with
every parameter and buffer replaced by a fake tensor, so that tracing allocates nothing, computes
nothing, and leaves the model's mode, buffers and hooks as they were.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from rlawrap.discover.modes import modes_asked
from rlawrap.discover.sideeffects import Attributes, random_generators_kept
from rlawrap.discover.tracer import Call, Frame, RLATracer
from rlawrap.errors import PlanError, TraceError


@dataclass
class Trace:
    """One traced graph, the module calls of its nodes, and the shadow it was traced on."""

    root: nn.Module
    graph: fx.Graph
    stacks: dict[fx.Node, tuple[Frame, ...]]
    calls: dict[Frame, Call]
    leaf_frames: dict[fx.Node, Frame]
    fake_mode: FakeTensorMode
    training: bool
    #: File and line of the network's code that made a node.
    places: dict[fx.Node, tuple[str, int]] = field(default_factory=dict)
    #: In a graph of train mode: names of the values that eval mode computes as well.
    names: dict[fx.Node, str] | None = None
    #: Modules below the root that `forward` asked for their mode, and what they answered.
    modes: dict[str, bool] = field(default_factory=dict)
    #: Tensors that `forward` made while tracing; the graph reads them as attributes of the root.
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    #: Attributes that `forward` set while tracing, in words; the graph does not set them.
    unset: tuple[str, ...] = ()
    #: Results on fake tensors by what their shape depends on; see `rlawrap.discover.shapes`.
    known: dict[Any, Any] = field(default_factory=dict)

    def owner(self, node: fx.Node) -> Frame:
        """The innermost traced call that a node ran in; `("", 0)` is the network itself."""
        stack = self.stacks.get(node)
        return stack[-1] if stack else ("", 0)

    def module(self, path: str) -> nn.Module:
        return self.root.get_submodule(path)

    def leaf(self, node: fx.Node) -> nn.Module | None:
        """The elementary module that a node calls, or None."""
        return self.root.get_submodule(str(node.target)) if node.op == "call_module" else None


def make_shadow(model: nn.Module, fake_mode: FakeTensorMode) -> nn.Module:
    """A copy of `model` whose parameters and buffers are fake tensors (no memory)."""
    memo: dict[int, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if torch.nn.parameter.is_lazy(tensor):
            raise PlanError(f"{name!r} is lazy and has no shape yet; run the model once first.")
        memo[id(tensor)] = fake_mode.from_tensor(tensor)
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise PlanError(f"the model cannot be copied: {type(error).__name__}: {error}") from error


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
    made: list[Answers] = []

    def answer(node: fx.Node, read: Callable[[Any], Any]) -> Any:
        if not made:
            begun = Trace(shadow, tracer.graph, tracer.stacks, {}, {}, fake_mode, training)
            made.append(conditions(begun))  # type: ignore[misc]
        return made[0].answer(node, read)

    if conditions is not None:
        tracer.answer = answer
    before = set(shadow.__dict__)
    attributes = Attributes(shadow)
    try:
        with random_generators_kept(), modes_asked(lambda: not tracer.answering) as asked:
            graph = tracer.trace(shadow, dict.fromkeys(given))
    except Exception as error:
        raise _explain(error, tracer, shadow) from error
    finally:
        plain, others = attributes.undo()
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


def unify(evaluated: Trace, trained: Trace) -> Trace | None:
    """Make the eval graph follow `training`, or return None where one graph cannot.

    Node by node the two graphs must call the same things. Where an argument is a bool that is the
    mode itself, a node that reads `<owner>.training` takes its place, so that one graph behaves as
    the network does in either mode.
    """
    pairs = list(zip(evaluated.graph.nodes, trained.graph.nodes, strict=False))
    if len(evaluated.graph.nodes) != len(trained.graph.nodes):
        return None
    twin = {t: e for e, t in pairs}
    changed: list[tuple[fx.Node, Any, Any]] = []
    for e, t in pairs:
        if (e.op, e.target) != (t.op, t.target):
            return None
        mine, its = (e.args, e.kwargs), (t.args, t.kwargs)
        if not _same(mine, its, twin):
            if not _same(mine, its, twin, modes=True):
                return None
            changed.append((e, mine, its))
    for node, mine, its in changed:
        with evaluated.graph.inserting_before(node):
            path = evaluated.owner(node)[0]
            flag = evaluated.graph.get_attr(f"{path}.training" if path else "training")
        evaluated.stacks[flag] = evaluated.stacks[node]
        node.args, node.kwargs = _substitute(mine, its, flag)
    return evaluated


def _same(a: Any, b: Any, twin: dict[fx.Node, fx.Node], modes: bool = False) -> bool:
    if isinstance(a, fx.Node) or isinstance(b, fx.Node):
        return isinstance(b, fx.Node) and twin.get(b) is a
    if isinstance(a, (tuple, list)):
        return (
            isinstance(b, (tuple, list))
            and len(a) == len(b)
            and all(_same(x, y, twin, modes) for x, y in zip(a, b, strict=True))
        )
    if isinstance(a, dict):
        return (
            isinstance(b, dict)
            and a.keys() == b.keys()
            and all(_same(a[k], b[k], twin, modes) for k in a)
        )
    if isinstance(a, slice):
        return isinstance(b, slice) and _same(
            (a.start, a.stop, a.step), (b.start, b.stop, b.step), twin, modes
        )
    if modes and a is False and b is True:
        return True
    return type(a) is type(b) and bool(a == b)


def _substitute(a: Any, b: Any, flag: fx.Node) -> Any:
    """`a` with `flag` wherever it is False and `b`, its twin, is True."""
    if isinstance(a, (tuple, list)):
        return type(a)(_substitute(x, y, flag) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return {k: _substitute(a[k], b[k], flag) for k in a}
    return flag if a is False and b is True else a
