"""The recorder: a real call of a network on tensors without memory, written down as a graph.

Every function of torch that forward calls becomes a node, and so does every call of a module that
is kept whole; the calls of other modules are noted around their nodes. Since the call is real,
Python's own semantics hold: a tensor is a tensor, and only what is asked of its *values* has no
answer.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlawrap._torch import ASSERT, VALUE_ERRORS, ConvNd, asks_for_value, last_node, without_modes
from rlawrap.capture.answers import Answers
from rlawrap.capture.effects import Modes, Settings, random_states
from rlawrap.capture.leaves import Leaves
from rlawrap.capture.meta import OnMeta, attribute_name
from rlawrap.capture.nodes import Nodes, bare, holds_tensor
from rlawrap.capture.old_types import plain_type
from rlawrap.capture.opcodes import as_operator, asserted, frame_of_network
from rlawrap.capture.questions import EFFECTS, UNKNOWN, VALUES, refused_attribute
from rlawrap.capture.results import key_of_function
from rlawrap.capture.shadow import Shadow
from rlawrap.capture.sizes import Term
from rlawrap.capture.tensors import Tensors, assign
from rlawrap.capture.terms import Guard, Terms
from rlawrap.capture.trace import Call, CannotFollow, Frame
from rlawrap.capture.whole import run_whole

_CALL = nn.Module.__call__
DRAWS = (
    "draws random numbers of Python or NumPy, which a graph would freeze (those of torch, such as "
    "torch.rand(x.size(0)), are drawn anew)"
)
_NO_GRAPH = ", which a traced graph does not do again"
#: Functions of torch that return nothing and are no part of what forward computes.
_SILENT = frozenset(("_set_grad_enabled",))
_SET_GRADIENT: Any = Tensor.requires_grad.__set__  # type: ignore[attr-defined]
_METHODS = (type(Tensor.add), type(Tensor.__getitem__))


class Recorder(OnMeta):
    """Writes down one call of a shadow; a mode of torch, within which the call is made."""

    def __init__(self, shadow: Shadow, leaves: Leaves) -> None:
        super().__init__(shadow.device)
        self.shadow, self.leaves, self.code = shadow, leaves, shadow.code
        self.graph = fx.Graph()
        self.terms = Terms(self.graph, self.made, self.made_at_front)
        self.tensors = Tensors(shadow, self.graph, self.made, self.lost)
        self.stack: list[Frame] = []
        self.stacks: dict[fx.Node, tuple[Frame, ...]] = {}
        self.places: dict[fx.Node, tuple[str, int]] = {}
        self.calls: dict[Frame, Call] = {}
        self.leaf_frames: dict[fx.Node, Frame] = {}
        #: Nested calls of what is kept whole: nothing within them is written down.
        self.paused = 0
        self.modes = Modes()
        #: The innermost module that raised an error.
        self.failed = ""
        #: The convolution that ran first.
        self.first_convolution: Any = None
        self._counts: dict[str, int] = {}
        modules = shadow.root.named_modules()
        self._paths = {id(m): path for path, m in modules if path}
        self.nodes = Nodes(self.tensors, self.terms, self.made, self.lost, self.frame)
        self.answers = Answers(self.tensors, self.terms, self._ask, self.lost)
        #: The first thing that no graph does: forward may have caught the error.
        self.reason: CannotFollow | None = None

    @property
    def path(self) -> str:
        """The path of the innermost module that runs."""
        return self.stack[-1][0] if self.stack else ""

    def frame(self) -> Frame:
        """The innermost call that runs; of the network itself it has no path."""
        return self.stack[-1] if self.stack else ("", 0)

    @contextmanager
    def out_of_call(self) -> Iterator[None]:
        """What is written down lies outside of the call of the innermost module: in its hooks.

        One that does what no graph does (it notes a mean) keeps nothing from there on.
        """
        frames, reason = ([] if self.paused else [self.stack.pop()]), self.reason
        try:
            yield
        except CannotFollow:
            self.reason = reason
        finally:
            self.stack += frames

    def last_node(self) -> fx.Node | None:
        """The last node of the graph so far; None within what is kept whole."""
        return None if self.paused else last_node(self.graph)

    def made(self, node: fx.Node) -> fx.Node:
        """Note the calls and the line that a new node was made in."""
        self.stacks[node] = tuple(self.stack)
        frame = frame_of_network(sys._getframe(1))
        self.places[node] = ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)
        return node

    def made_at_front(self, node: fx.Node) -> fx.Node:
        """Note of a new node that it lies before all calls."""
        self.stacks[node], self.places[node] = (), ("", 0)
        return node

    def lost(self, what: str) -> CannotFollow:
        """The error to raise for what no graph does."""
        reason = CannotFollow(self.path, what)
        self.reason = self.reason or reason
        return reason

    def begin(self) -> None:
        """From here on count what forward switches, and tell what it changes."""
        self.modes = Modes()
        self.settings = Settings(self.shadow.root)

    def function(self, target: Callable[..., Any], args: Any) -> fx.Node:
        """A node that calls a function on nodes."""
        return self.made(self.graph.call_function(target, args))

    def whole_paths(self) -> set[str]:
        """The paths of the modules that were kept whole."""
        return {frame[0] for frame in self.leaf_frames.values()}

    # Functions of torch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return self.on_meta(func, args, kwargs)
        asked = attribute_name(func)
        if asked is not None:
            return self._attribute(func, asked, args[0])
        name = getattr(func, "__name__", "")
        if name in ("dim", "ndimension"):
            return self.answers.rank(args[0])
        if name in ("size", "numel", "nelement", "stride") and isinstance(args[0], Tensor):
            return self.answers.size(name, func, args, kwargs)
        if name in VALUES:
            return self.answers.values(name, args, kwargs)
        if name in EFFECTS or func is torch.autograd.grad:
            raise self.lost(f"calls {name}() of a tensor, which acts on its gradient")
        if name == "_assert":
            return self._assert(*args, **kwargs)
        if name == "__setitem__":
            return self._assign(*args)
        if func is Tensor.type:
            return self._type(*args, **kwargs)
        if func == _SET_GRADIENT and args[1] is False and not self.tensors.is_own(args[0]):
            return None  # what needs a gradient would not take it
        return self._function(func, name, args, kwargs)

    def _function(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        given = (self.nodes.arg(args), self.nodes.arg(kwargs))
        before = self.tensors.versions((args, kwargs))
        try:
            out = self._call(func, bare(args), bare(kwargs))
        except VALUE_ERRORS as error:
            raise self.lost(UNKNOWN) from error
        except RuntimeError as error:
            if not asks_for_value(error):
                raise
            out = self._call(func, *self.answers.known((bare(args), bare(kwargs))))
        if not holds_tensor(out):
            if out is None and name not in _SILENT:
                raise self.lost(f"calls {name}(), which changes more than what it computes")
            return out
        self._check_modes()
        method = isinstance(func, _METHODS) or getattr(func, "__qualname__", "").startswith(
            ("Tensor.", "TensorBase.")
        )
        if not method:
            return self._finish(self.graph.call_function(func, *given), out, before)
        found = as_operator(name, given[0], given[1], frame_of_network(sys._getframe(2)))
        if name == "__getitem__":
            found = (operator.getitem, given[0])
        if found is not None:
            return self._finish(self.graph.call_function(*found), out, before)
        return self._finish(self.graph.call_method(name, *given), out, before)

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What a function of torch returns; what it calls in its turn is not written down."""
        key = key_of_function(func, args, kwargs)
        self.paused += 1
        try:
            return self.shadow.results.call(
                key, lambda: self.on_meta(func, args, kwargs), args, kwargs
            )
        finally:
            self.paused -= 1

    def _finish(self, node: fx.Node, out: Any, before: dict[int, Any]) -> Any:
        return self.tensors.bind(self.made(node), out, before)

    def _assign(self, tensor: Tensor, index: Any, value: Any) -> None:
        given = self.nodes.arg((tensor, index, value))
        before = self.tensors.versions((tensor,))
        try:
            self._call(Tensor.__setitem__, bare((tensor, index, value)), {})
        except VALUE_ERRORS as error:
            raise self.lost(UNKNOWN) from error
        self._check_modes()
        self._finish(self.graph.call_function(assign, given), tensor, before)

    def _type(self, tensor: Tensor, kind: Any = None, non_blocking: bool = False) -> Any:
        if kind is None:
            return self.nodes.type_of(tensor)
        like = self.nodes.tensor_of_type(kind)
        if like is not None:
            return self._function(Tensor.type_as, "type_as", (tensor, like), {})
        return self._function(Tensor.type, "type", (tensor, plain_type(kind)), {})

    def _check_modes(self) -> None:
        switched = self.modes.switched()
        if switched is not None:
            raise self.lost(f"{switched}{_NO_GRAPH}")

    # What forward asks of tensors

    def _attribute(self, func: Any, name: str, tensor: Tensor) -> Any:
        if name == "shape":
            return self.answers.shape(tensor)
        if name == "ndim":
            return self.answers.rank(tensor)
        if name == "device":
            return self.nodes.device_of(tensor)
        if name == "dtype":
            return self.nodes.dtype_of(tensor)
        if refused_attribute(name, sys._getframe(2)):
            raise self.lost(f"asks for {name!r} of a tensor, which may change")
        before = self.tensors.versions((tensor,))
        out = self._call(func, (tensor,), {})
        if not isinstance(out, Tensor) or name == "grad":
            return out
        node = self.graph.call_function(getattr, (self.tensors.node(tensor), name))
        return self._finish(node, out, before)

    def _assert(self, condition: Any, message: Any = "") -> None:
        if isinstance(condition, Tensor):
            given = (self.nodes.arg(condition), str(message))
            self.made(self.graph.call_function(ASSERT, given))
        elif not condition:
            raise AssertionError(message)

    def _ask(self, term: Term, truth: bool) -> None:
        """A number that follows from sizes was compared, and forward goes on with the answer."""
        roots = term.roots()
        if self.paused or any(root.graph is not self.graph for root in roots):
            return
        frame = frame_of_network(sys._getframe(1))
        self.terms.hold(Guard(term, truth, asserted(frame)))

    # Calls

    def call_module(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Let a module run; a node, if it is kept whole, or the calls that its nodes lie in."""
        path = self._paths.get(id(module))
        if self.paused or path is None:
            return _CALL(module, *args, **kwargs)
        frame = (path, self._counts.get(path, 0))
        self._counts[path] = frame[1] + 1
        if self.leaves.keeps(module, path):
            with without_modes():
                return self._leaf(module, frame, args, kwargs)
        call = Call(frame, tuple(self.stack), *self.nodes.nodes_of((args, kwargs)))
        self.calls[frame] = call
        self.stack.append(frame)
        states = random_states()
        try:
            out = _CALL(module, *args, **kwargs)
            if random_states() != states:
                raise self.lost(DRAWS)
        except Exception:
            self.failed = self.failed or path
            raise
        finally:
            self.stack.pop()
        call.output = self.nodes.nodes_of(out)
        return out

    def _leaf(self, module: nn.Module, frame: Frame, args: Any, kwargs: Any) -> Any:
        self._check_modes()
        changed = self.settings.changed(module, frame[0])
        if changed is not None:
            raise self.lost(f"{changed}{_NO_GRAPH}")
        if self.first_convolution is None and isinstance(module, ConvNd):
            self.first_convolution = module
        given = self.nodes.arg(args), self.nodes.arg(kwargs)
        before = self.tensors.versions((args, kwargs))
        try:
            out = self._whole(module, args, kwargs)
        except Exception:
            self.failed = self.failed or frame[0]
            raise
        self.settings.keep(module)
        node = self.graph.call_module(frame[0], *given)
        self.leaf_frames[node] = frame
        return self._finish(node, out, before)

    def call_whole(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Let a function run, and write it down as one node."""
        with without_modes():
            self._check_modes()
            given = self.nodes.arg(args), self.nodes.arg(kwargs)
            before = self.tensors.versions((args, kwargs))
            out = self._whole(function, args, kwargs)
            return self._finish(self.graph.call_function(function, *given), out, before)

    def _whole(self, called: Any, args: Any, kwargs: Any) -> Any:
        self.paused += 1
        try:
            args, kwargs = bare(args), bare(kwargs)
            return self.shadow.results.call_module(
                called, lambda: run_whole(called, args, kwargs, self.device), args, kwargs
            )
        finally:
            self.paused -= 1
