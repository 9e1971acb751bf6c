"""A `torch.fx` tracer that notes, for every node, the module calls it ran in."""

from __future__ import annotations

import dis
import inspect as pyinspect
import operator
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import fx, nn

from rlawrap._torch import ASSERT, last_node
from rlawrap.capture.effects import Modes, asks_only, random_states
from rlawrap.capture.factories import packed_sizes
from rlawrap.capture.leaves import LEAF_BASES, library_functions, library_leaves
from rlawrap.capture.proxies import AskedProxy, NoAnswer, NoArguments, NoKeywords, nodes_of
from rlawrap.capture.trace import Call, Frame

_NO_GRAPH = ", which a traced graph does not do again"
_DRAWS = (
    "draws random numbers that do not derive from its input (torch.rand, random.random, NumPy's), "
    "and tracing would freeze them; draw them with torch.rand_like(x) or "
    "x.new_empty(…).bernoulli_(), or"
)


class RLATracer(fx.Tracer):
    """Traces into everything but elementary layers; `stacks[node]` are the calls it ran in."""

    proxy_buffer_attributes = True

    def __init__(self, leaf_modules: Iterable[type | str] = ()) -> None:
        super().__init__(autowrap_functions=library_functions())
        self.user_leaves = tuple(leaf_modules)
        self.leaf_classes, self.no_trace = library_leaves()
        self.stack: list[Frame] = []
        self.call_counts: dict[str, int] = {}
        self.stacks: dict[fx.Node, tuple[Frame, ...]] = {}
        self.calls: dict[Frame, Call] = {}
        self.leaf_frames: dict[fx.Node, Frame] = {}
        #: The line of the network's own code that made a node.
        self.places: dict[fx.Node, tuple[str, int]] = {}
        self._tensor_names: dict[int, str] = {}
        #: Answers questions about shapes; set by whoever can run the graph so far.
        self.answer: Callable[[fx.Node, Callable[[Any], Any]], Any] | None = None
        #: Whether leaves run to answer a question, rather than the forward that is traced.
        self.answering = False
        #: The innermost module whose forward does what a graph would not, and what that is.
        self.frozen: tuple[str, str] | None = None
        self._modes = Modes()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        for leaf in self.user_leaves:
            if leaf == module_qualified_name or (isinstance(leaf, type) and isinstance(m, leaf)):
                return True
        if isinstance(m, (*LEAF_BASES, *self.leaf_classes)):
            return True
        return self.no_trace(type(m)) or super().is_leaf_module(m, module_qualified_name)

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        tensors = [*root.named_parameters(), *root.named_buffers()]
        self._tensor_names = {id(t): name for name, t in reversed(tensors)}
        self._modes = Modes()
        states = random_states()
        with self._modes.counting(), packed_sizes():
            graph = super().trace(root, concrete_args)
        if self.frozen is None and random_states() != states:
            self.frozen = ("", _DRAWS)
        return graph

    def last_node(self) -> fx.Node | None:
        """The last node of the graph so far; None while leaves run to answer a question."""
        return None if self.answering else last_node(self.graph)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self.answering:
            return attr_val
        # fx walks all named parameters here at every access: quadratic in a deep network.
        name = self._tensor_names.get(id(attr_val)) if isinstance(attr_val, torch.Tensor) else None
        if name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return AskedProxy(node, self)

    def ask(self, proxy: Any, read: Callable[[Any], Any]) -> Any:
        """What `read` makes of a proxy's value. Raises `fx.proxy.TraceError` if that is open."""
        node = proxy.node
        if self.answer is None:
            raise fx.proxy.TraceError(f"{read.__name__} of a symbolic value")
        self.answering = True
        try:
            return self.answer(node, read)
        except NoAnswer as reason:
            raise fx.proxy.TraceError(
                f"control flow on a value that tracing cannot know: {reason}"
            ) from None
        finally:
            self.answering = False

    def hold(self, condition: Any) -> None:
        """The graph checks a condition that was taken to hold while tracing."""
        message = (
            "this network was traced for inputs of another size or kind, with which its forward "
            "goes another way; give apply an input like this one as example_input="
        )
        self.create_proxy("call_function", ASSERT, (condition, message), {})

    def to_bool(self, obj: fx.Proxy) -> bool:
        if _asserted(pyinspect.currentframe()):
            message = "an assertion in the forward of the network"
            self.create_proxy("call_function", ASSERT, (obj, message), {})
            return True
        truth = bool(self.ask(obj, bool))
        value: Any = obj
        if self.ask(obj, type) is not bool:
            value = value != 0
        self.hold(value == truth)
        return truth

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        return iter([obj[i] for i in range(self.ask(obj, len))])  # type: ignore[index]

    def create_arg(self, a: Any) -> Any:
        # fx would make a plain dict of it; detectors and segmentation networks return OrderedDicts.
        if type(a) is OrderedDict:
            items = [(key, self.create_arg(value)) for key, value in a.items()]
            return self.create_node("call_function", OrderedDict, (items,), {})
        return super().create_arg(a)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.stacks[node] = tuple(self.stack)
        self.places[node] = _place(sys._getframe(1))
        if self.frozen is None and node.op.startswith("call_") and not asks_only(node):
            switched = self._modes.switched()
            if switched is not None:
                self.frozen = (self.stack[-1][0] if self.stack else "", f"{switched}{_NO_GRAPH}")
        return node

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if self.answering:
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        frame = (path, self.call_counts.get(path, 0))
        self.call_counts[path] = frame[1] + 1
        if self.is_leaf_module(m, path):
            proxy = self.create_proxy("call_module", path, args, kwargs)
            self.leaf_frames[proxy.node] = frame
            return proxy
        call = Call(frame, tuple(self.stack), nodes_of(args), nodes_of(kwargs))
        self.calls[frame] = call
        self.stack.append(frame)
        before = random_states()
        out = forward(*args, **kwargs)
        if self.frozen is None and random_states() != before:
            self.frozen = (path, _DRAWS)
        self.stack.pop()
        call.output = nodes_of(out)
        return out

    def _proxy_placeholder(
        self, name: str, concrete_args: Any, sig: pyinspect.Signature, fn_for_analysis: Any
    ) -> Any:
        """An argument with a default keeps it while tracing, and the graph checks that it does.

        A Proxy would answer `is not None` with True and take the branch for a value never given.
        """
        if name.startswith("*"):
            return NoKeywords() if name.startswith("**") else NoArguments()
        proxy = super()._proxy_placeholder(name, None, sig, fn_for_analysis)
        default = sig.parameters[name].default
        if default is pyinspect.Parameter.empty or (concrete_args and name in concrete_args):
            return proxy
        same = self.create_proxy("call_function", operator.eq, (proxy, default), {})
        message = f"this network was traced with {name}={default!r} and takes no other value"
        self.create_proxy("call_function", ASSERT, (same, message), {})
        return default


def _place(frame: FrameType | None) -> tuple[str, int]:
    """File and line of the nearest caller outside torch and this package's tracing."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(("torch.", "rlawrap.capture.")):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return "", 0


def _asserted(frame: FrameType | None) -> bool:
    """Whether the value whose truth is asked for, two frames up, stands in an `assert`."""
    for _ in range(2):
        frame = frame.f_back if frame is not None else None
    if frame is None:
        return False
    here = frame.f_lasti
    code = [i for i in dis.get_instructions(frame.f_code) if i.offset >= here]
    code = [i for i in code if i.opname not in ("TO_BOOL", "CACHE", "NOT_TAKEN", "COMPARE_OP")]
    return (
        len(code) > 1
        and code[0].opname.startswith("POP_JUMP")
        and code[0].opname.endswith("IF_TRUE")
        and (
            code[1].opname == "LOAD_ASSERTION_ERROR"
            or (code[1].opname == "LOAD_COMMON_CONSTANT" and code[1].argval is AssertionError)
        )
    )
