"""The recorder: a real call of a network on tensors without memory, written down as a graph.

Every function of torch that forward calls becomes a node, and so does every call of a module that
is kept whole; the calls of other modules are noted around their nodes. Since the call is real,
Python's own semantics hold: a tensor is a tensor, and only what is asked of its *values* has no
answer.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from rlawrap._torch import ASSERT, ConvNd, last_node, pytree, without_modes
from rlawrap.capture.effects import Modes, random_states
from rlawrap.capture.leaves import Leaves
from rlawrap.capture.meta import OnMeta, attribute_name
from rlawrap.capture.opcodes import as_operator, asserted, frame_of_network
from rlawrap.capture.questions import UNKNOWN, VALUES, refused_attribute
from rlawrap.capture.results import key_of_function
from rlawrap.capture.shadow import Shadow
from rlawrap.capture.sizes import SizeFloat, SizeInt, Term, number, plain, size, term_of
from rlawrap.capture.tensors import Tensors, assign
from rlawrap.capture.terms import Guard, Terms
from rlawrap.capture.trace import Call, CannotFollow, Frame
from rlawrap.capture.values import item_of, list_of, numel_of, stride_of, values_of
from rlawrap.capture.whole import run_whole

_CALL = nn.Module.__call__
DRAWS = (
    "draws random numbers of Python or NumPy, which a graph would freeze (those of torch, such as "
    "torch.rand(x.size(0)), are drawn anew)"
)
_NO_GRAPH = ", which a traced graph does not do again"
#: Functions of torch that return nothing and are no part of what forward computes.
_SILENT = frozenset("_set_grad_enabled retain_grad".split())
_METHODS = (type(Tensor.add), type(Tensor.__getitem__))


class Recorder(OnMeta):
    """Writes down one call of a shadow; a mode of torch, within which the call is made."""

    def __init__(self, shadow: Shadow, leaves: Leaves) -> None:
        super().__init__(shadow.device)
        self.shadow, self.leaves, self.code = shadow, leaves, shadow.code
        self.graph = fx.Graph()
        self.terms = Terms(self.graph, self.made)
        self.tensors = Tensors(shadow, self.graph, self.made, self.lost)
        self.stack: list[Frame] = []
        self.stacks: dict[fx.Node, tuple[Frame, ...]] = {}
        self.places: dict[fx.Node, tuple[str, int]] = {}
        self.calls: dict[Frame, Call] = {}
        self.leaf_frames: dict[fx.Node, Frame] = {}
        #: Nested calls of what is kept whole: nothing within them is written down.
        self.paused = 0
        self.modes = Modes()
        #: The module that is kept whole and runs, or raised an error.
        self.failing: str | None = None
        #: The convolution that ran first.
        self.first_convolution: Any = None
        self._counts: dict[str, int] = {}
        modules = shadow.root.named_modules()
        self._paths = {id(m): path for path, m in modules if path}
        self._devices: dict[int, tuple[torch.device, fx.Node]] = {}
        self._dtypes: dict[tuple[Frame, torch.dtype], fx.Node] = {}
        self._attributes: dict[tuple[fx.Node, str], fx.Node] = {}

    @property
    def path(self) -> str:
        """The path of the innermost module that runs."""
        return self.stack[-1][0] if self.stack else ""

    def last_node(self) -> fx.Node | None:
        """The last node of the graph so far; None within what is kept whole."""
        return None if self.paused else last_node(self.graph)

    def made(self, node: fx.Node) -> fx.Node:
        """Note the calls and the line that a new node was made in."""
        self.stacks[node] = tuple(self.stack)
        frame = frame_of_network(sys._getframe(1))
        self.places[node] = ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)
        return node

    def lost(self, what: str) -> CannotFollow:
        return CannotFollow(self.path, what)

    def begin(self) -> None:
        """From here on count what forward switches."""
        self.modes = Modes()

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
            return self._rank(args[0])
        if name in ("size", "numel", "nelement", "stride") and isinstance(args[0], Tensor):
            return self._size(name, func, args, kwargs)
        if name in VALUES:
            return self._values(name, args, kwargs)
        if name == "_assert":
            return self._assert(*args, **kwargs)
        if name == "__setitem__":
            return self._assign(*args)
        return self._function(func, name, args, kwargs)

    def _function(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        given = (self.arg(args), self.arg(kwargs))
        before = self.tensors.versions((args, kwargs))
        out = self._call(func, _plain(args), _plain(kwargs))
        if not _holds_tensor(out):
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
        given = self.arg((tensor, index, value))
        before = self.tensors.versions((tensor,))
        self._call(Tensor.__setitem__, _plain((tensor, index, value)), {})
        self._check_modes()
        self._finish(self.graph.call_function(assign, given), tensor, before)

    def _check_modes(self) -> None:
        switched = self.modes.switched()
        if switched is not None:
            raise self.lost(f"{switched}{_NO_GRAPH}")

    # What forward asks of tensors

    def _attribute(self, func: Any, name: str, tensor: Tensor) -> Any:
        if name == "shape":
            return self._shape(tensor)
        if name == "ndim":
            return self._rank(tensor)
        if name == "device":
            made = torch.device(str(self.device))
            if not self.tensors.is_constant(tensor):
                self._devices[id(made)] = made, self.tensors.node(tensor)
            return made
        if name == "dtype":
            if not self.tensors.is_constant(tensor):
                key = (self.stack[-1] if self.stack else ("", 0), tensor.dtype)
                self._dtypes.setdefault(key, self.tensors.node(tensor))
            return tensor.dtype
        if refused_attribute(name, sys._getframe(2)):
            raise self.lost(f"asks for {name!r} of a tensor, which may change")
        before = self.tensors.versions((tensor,))
        out = self._call(func, (tensor,), {})
        if not isinstance(out, Tensor) or name == "grad":
            return out
        node = self.graph.call_function(getattr, (self.tensors.node(tensor), name))
        return self._finish(node, out, before)

    def _shape(self, tensor: Tensor) -> torch.Size:
        if self.tensors.is_constant(tensor):
            return tensor.shape
        node = self.tensors.node(tensor)
        self.terms.shapes[node] = tuple(tensor.shape)
        return torch.Size(
            number(n, Term(size, (node, i), n), self._ask) for i, n in enumerate(tensor.shape)
        )

    def _rank(self, tensor: Tensor) -> int:
        """The number of axes, a plain number that the graph checks."""
        if not self.tensors.is_constant(tensor):
            self.terms.hold_rank(self.tensors.node(tensor), tensor.dim())
        return tensor.dim()

    def _size(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        tensor = args[0]
        if name == "size":
            shape = self._shape(tensor)
            axis = args[1] if len(args) > 1 else kwargs.get("dim")
            return shape if axis is None else shape[plain(axis)]
        value = func(*_plain(args), **_plain(kwargs))
        if self.tensors.is_constant(tensor):
            return value
        function = stride_of if name == "stride" else numel_of
        term = Term(function, (self.tensors.node(tensor), *_plain(args[1:])), value)
        return number(value, term, self._ask)

    def _values(self, name: str, args: Any, kwargs: Any) -> Any:
        """What forward asks of a tensor's values, where sizes and constants decide them."""
        tensor, *rest = args
        if any(isinstance(a, Tensor) for a in rest):
            raise self.lost(UNKNOWN)
        node = self.tensors.node(tensor)
        value, sized = values_of(node, self.tensors.constants, self.terms.worth, self.lost)
        answer = getattr(value, name)(*rest, **kwargs)
        if not sized or name not in _KEPT:
            return answer
        return number(answer, Term(_KEPT[name], (node,), answer), self._ask)

    def _assert(self, condition: Any, message: Any = "") -> None:
        if isinstance(condition, Tensor):
            given = (self.arg(condition), str(message))
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
        call = Call(frame, tuple(self.stack), self.nodes_of(args), self.nodes_of(kwargs))
        self.calls[frame] = call
        self.stack.append(frame)
        states = random_states()
        out = _CALL(module, *args, **kwargs)
        if random_states() != states:
            raise self.lost(DRAWS)
        self.stack.pop()
        call.output = self.nodes_of(out)
        return out

    def _leaf(self, module: nn.Module, frame: Frame, args: Any, kwargs: Any) -> Any:
        self._check_modes()
        if self.first_convolution is None and isinstance(module, ConvNd):
            self.first_convolution = module
        given = self.arg(args), self.arg(kwargs)
        before = self.tensors.versions((args, kwargs))
        self.failing = frame[0]
        out = self._whole(module, args, kwargs)
        self.failing = None
        node = self.graph.call_module(frame[0], *given)
        self.leaf_frames[node] = frame
        return self._finish(node, out, before)

    def call_whole(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Let a function run, and write it down as one node."""
        with without_modes():
            self._check_modes()
            given = self.arg(args), self.arg(kwargs)
            before = self.tensors.versions((args, kwargs))
            out = self._whole(function, args, kwargs)
            return self._finish(self.graph.call_function(function, *given), out, before)

    def _whole(self, called: Any, args: Any, kwargs: Any) -> Any:
        self.paused += 1
        try:
            args, kwargs = _plain(args), _plain(kwargs)
            return self.shadow.results.call_module(
                called, lambda: run_whole(called, args, kwargs, self.device), args, kwargs
            )
        finally:
            self.paused -= 1

    # Values -> nodes

    def nodes_of(self, value: Any) -> Any:
        """A tree of values with the nodes of its tensors in their place."""
        with without_modes():
            return pytree.tree_map_only(Tensor, self.tensors.node, value)

    def arg(self, value: Any) -> Any:
        """A value as the argument of a node. Raises `CannotFollow` for what no graph can hold."""
        if isinstance(value, Tensor):
            return self.tensors.node(value)
        if isinstance(value, (SizeInt, SizeFloat)):
            fresh = all(root.graph is self.graph for root in value.term.roots())
            return self.terms.node(term_of(value)) if fresh else plain(value)
        if isinstance(value, torch.Size):
            return self._whole_shape(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.arg, value))
        if isinstance(value, (tuple, list)):
            items = [self.arg(v) for v in value]
            return tuple(items) if isinstance(value, tuple) else items
        if isinstance(value, dict):
            return {key: self.arg(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(self.arg(value.start), self.arg(value.stop), self.arg(value.step))
        if isinstance(value, torch.device):
            asked = self._devices.get(id(value))
            return value if asked is None else self._read(asked[1], "device")
        if isinstance(value, torch.dtype):
            node = self._dtypes.get((self.stack[-1] if self.stack else ("", 0), value))
            return value if node is None else self._read(node, "dtype")
        if isinstance(value, _PLAIN) or value is None or value is Ellipsis:
            return value
        if type(value).__module__ == "numpy" and hasattr(value, "item") and not value.shape:
            return value.item()
        raise self.lost(f"gives a {type(value).__name__} to a function of torch")

    def _read(self, node: fx.Node, name: str) -> fx.Node:
        """The node of an attribute of a tensor; one for all who use it."""
        if (node, name) not in self._attributes:
            made = self.made(self.graph.call_function(getattr, (node, name)))
            self._attributes[node, name] = made
        return self._attributes[node, name]

    def _whole_shape(self, value: torch.Size) -> Any:
        """A shape as the shape of the tensor that it is of, or number by number."""
        terms = [term_of(n) for n in value]
        roots = {t.args[0] for t in terms if isinstance(t, Term) and t.function is size}
        axes = [t.args[1] for t in terms if isinstance(t, Term) and t.function is size]
        source = roots.pop() if len(roots) == 1 else None
        if source is None or axes != list(range(len(self.terms.shapes.get(source, "")))):
            return tuple(map(self.arg, value))
        return self.terms.shape(source)


_PLAIN = (
    bool, int, float, complex, str, torch.layout, torch.memory_format, range,
)  # fmt: skip
_KEPT: dict[str, Callable[..., Any]] = {
    "item": item_of,
    "tolist": list_of,
    "__bool__": item_of,
    "is_nonzero": item_of,
}


def _plain(value: Any) -> Any:
    """A value whose numbers have forgotten what they follow from."""
    if isinstance(value, (SizeInt, SizeFloat)):
        return plain(value)
    if isinstance(value, tuple):
        if not value:
            return value
        items = [_plain(v) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if type(value) is list:
        return [_plain(v) for v in value]
    if type(value) is dict:
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, slice):
        return slice(_plain(value.start), _plain(value.stop), _plain(value.step))
    return value


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_holds_tensor, value))
    return isinstance(value, Tensor)
