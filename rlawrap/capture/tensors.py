"""The tensors of a recorded call, and which nodes they come from."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from torch import Tensor, fx

from rlawrap._torch import base_of, is_transformed, memory_of, pytree, writes
from rlawrap.capture.shadow import Shadow
from rlawrap.capture.trace import name_of

#: One step into the value of a node: a function of the node and a key, such as `getitem`.
Step = tuple[Callable[..., Any], Any]


@dataclass
class _Known:
    """A tensor, the node it comes from, and the steps from that node's value to it."""

    tensor: Tensor
    node: fx.Node
    steps: tuple[Step, ...] = ()
    #: How often the memory had been written to when the node was made.
    writes: int = 0


@dataclass
class _Memory:
    """Memory that tensors may share: how often it was written to, and by whom last."""

    base: Tensor
    writes: int = 0
    writer: fx.Node | None = None
    last: Tensor | None = None


def assign(tensor: Tensor, index: Any, value: Any) -> Tensor:
    """`tensor[index] = value`, and the tensor: who reads it depends on what was written."""
    tensor[index] = value
    return tensor


def written(tensor: Tensor, other: Any) -> Tensor:
    """A tensor as it is after another one, which shares its memory, was written to."""
    return tensor


class Tensors:
    """Which node every tensor comes from; parameters, buffers and attributes are nodes, too."""

    def __init__(
        self,
        shadow: Shadow,
        graph: fx.Graph,
        made: Callable[[fx.Node], fx.Node],
        lost: Callable[[str], Exception],
    ) -> None:
        self.shadow, self.graph, self.made, self.lost = shadow, graph, made, lost
        #: Tensors that lie in no attribute: the values that the network had for them.
        self.constants: dict[str, Tensor] = {}
        #: The same of the attributes of modules that are no parameters or buffers.
        self.attributes: dict[str, Tensor] = {}
        #: Tensors, by their ids, that an earlier call left: no size is taken to equal theirs.
        self.stored: set[int] = set()
        self._known: dict[int, _Known] = {}
        self._holders: dict[int, tuple[Any, tuple[Any, ...], fx.Node, tuple[Step, ...]]] = {}
        self._memory: dict[int, _Memory] = {}
        self._own = _own_tensors(shadow)
        self._names = {id(tensor): name for name, tensor in reversed(self._own.items())}
        for key, name in self._names.items():
            if key in shadow.originals:
                self.attributes[name] = shadow.originals[key]

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor is the network's own, and no value of the call."""
        return id(tensor) in self._names or id(tensor) not in self._known

    def is_own(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter, a buffer or another attribute of a module."""
        return id(tensor) in self._names

    def node(self, tensor: Tensor) -> fx.Node:
        """The node of a tensor. Raises what `lost` makes for one that nothing recorded made."""
        known = self._known.get(id(tensor))
        if known is None:
            known = self._known[id(tensor)] = _Known(tensor, self._constant(tensor))
        for function, key in known.steps:
            known.node = self.made(self.graph.call_function(function, (known.node, key)))
        known.steps = ()
        memory = self._memory.get(id(base_of(tensor)))
        if memory is not None and memory.writes > known.writes and memory.last is not None:
            if memory.writer is not known.node and _overlap(tensor, memory.last):
                args = (known.node, memory.writer)
                known.node = self.made(self.graph.call_function(written, args))
            known.writes = memory.writes
        return known.node

    def _constant(self, tensor: Tensor) -> fx.Node:
        name = self._names.get(id(tensor))
        if name is not None:
            return self.made(self.graph.get_attr(name))
        if is_transformed(tensor):
            raise self.lost("computes in a transform of torch.func (vmap, grad, jvp)")
        value = self.shadow.originals.get(id(tensor))
        source = self._same_memory(tensor) if value is None else None
        if source is not None:
            return self.made(self.graph.call_method("detach", (self.node(source),)))
        if value is None and tensor.device.type == "meta":
            raise self.lost("uses a tensor that was made by what no graph sees")
        name = f"_tensor_constant{len(self.constants)}"
        self.constants[name] = tensor.detach() if value is None else value
        return self.made(self.graph.get_attr(name))

    def _same_memory(self, tensor: Tensor) -> Tensor | None:
        """The tensor that another shows whole: `Variable(x)`, which no function call makes."""
        candidates = [*(known.tensor for known in self._known.values()), *self._own.values()]
        here = _place(tensor)
        return next((t for t in candidates if _place(t) == here), None)

    def versions(self, values: Any) -> dict[int, tuple[Tensor, int]]:
        """How often each tensor among some values was written to."""
        tensors = (v for v in pytree.tree_leaves(values) if isinstance(v, Tensor))
        return {id(t): (t, writes(t)) for t in tensors}

    def bind(self, node: fx.Node, out: Any, before: dict[int, tuple[Tensor, int]]) -> Any:
        """Let the tensors in a node's value come from it; what `out` becomes for forward.

        A tensor that was written to comes from the node from now on. One that is handed back as it
        was gets another name, since the next call may hand back a copy.
        """
        changed = {key: t for key, (t, version) in before.items() if writes(t) != version}
        for tensor in changed.values():
            self._write(tensor, node, isinstance(out, Tensor) and out is tensor)
        if isinstance(out, Tensor):
            if id(out) in changed:
                return out
            out = out.view_as(out) if id(out) in before or id(out) in self._known else out
            self.know(out, node, ())
            return out
        bound = self._bind_all(out, node, (), set(before))
        if name_of(node) in _PARTS:
            for part in bound:
                self.node(part)
        return bound

    def holder(self, value: Any) -> fx.Node | None:
        """The node that a list, tuple or dict is the value of, as long as nobody changed it.

        Only of modules that are kept whole, whose lists may be longer in another call.
        """
        known = self._holders.get(id(value))
        if known is None or any(
            a is not b for a, b in zip_longest(_items(value), known[1], fillvalue=_MISSING)
        ):
            return None
        _, items, node, steps = known
        for function, key in steps:
            node = self.made(self.graph.call_function(function, (node, key)))
        self._holders[id(value)] = value, items, node, ()
        return node

    def _bind_all(self, value: Any, node: fx.Node, steps: tuple[Step, ...], given: set[int]) -> Any:
        bound = self._bind_items(value, node, steps, given)
        if node.op == "call_module" and isinstance(bound, (tuple, list, dict)) and bound:
            self._holders[id(bound)] = bound, _items(bound), node, steps
        return bound

    def _bind_items(
        self, value: Any, node: fx.Node, steps: tuple[Step, ...], given: set[int]
    ) -> Any:
        if isinstance(value, Tensor):
            value = value.view_as(value) if id(value) in given else value
            self.know(value, node, steps)
            return value
        if isinstance(value, (tuple, list)):
            items = [
                self._bind_all(v, node, (*steps, (operator.getitem, i)), given)
                for i, v in enumerate(value)
            ]
            if all(a is b for a, b in zip(items, value, strict=True)):
                return value
            named = isinstance(value, tuple) and hasattr(value, "_fields")
            return type(value)(*items) if named else type(value)(items)
        if isinstance(value, dict):
            for key, item in value.items():
                value[key] = self._bind_all(item, node, (*steps, (operator.getitem, key)), given)
        elif hasattr(value, "__dict__") and not isinstance(value, type):
            for key, item in vars(value).items():
                if isinstance(item, (Tensor, tuple, list, dict)):
                    vars(value)[key] = self._bind_all(item, node, (*steps, (getattr, key)), given)
        return value

    def know(self, tensor: Tensor, node: fx.Node, steps: tuple[Step, ...] = ()) -> None:
        """Note that a tensor is the value of a node, or what some steps into it find."""
        memory = self._memory.get(id(base_of(tensor)))
        writes = 0 if memory is None else memory.writes
        self._known[id(tensor)] = _Known(tensor, node, steps, writes)

    def _write(self, tensor: Tensor, node: fx.Node, returned: bool) -> None:
        """Note that a node wrote to a tensor; who reads it later reads the node."""
        base = base_of(tensor)
        memory = self._memory.setdefault(id(base), _Memory(base))
        memory.writes += 1
        memory.writer, memory.last = node, tensor
        if returned:
            self._known[id(tensor)] = _Known(tensor, node, (), memory.writes)


#: Functions whose results are taken apart at once, so that the parts are numbered as they come.
_PARTS = frozenset("chunk split tensor_split split_with_sizes unbind".split())
_MISSING = object()


def _items(value: Any) -> tuple[Any, ...]:
    return (*value, *value.values()) if isinstance(value, dict) else tuple(value)


def _own_tensors(shadow: Shadow) -> dict[str, Tensor]:
    """Every tensor that is an attribute of a module, by its path."""
    own: dict[str, Tensor] = {}
    for path, module in shadow.root.named_modules():
        for table in (vars(module), module._parameters, module._buffers):
            for name, value in table.items():
                if isinstance(value, Tensor):
                    own.setdefault(f"{path}.{name}" if path else name, value)
    return own


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Where in memory a tensor lies, and how."""
    return memory_of(tensor), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors on the same memory may have an element in common."""
    if a.dim() != b.dim() or a.stride() != b.stride():
        return True
    offset = int(b.storage_offset() - a.storage_offset())
    first = a if offset >= 0 else b
    offset = abs(offset)
    for stride, length in sorted(zip(first.stride(), first.shape, strict=True), reverse=True):
        if stride == 0:
            continue
        if offset // stride >= length:
            return False
        offset %= stride
    return True
