"""Values of a recorded call -> arguments of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from rlawrap._torch import pytree, without_modes
from rlawrap.capture.old_types import TensorType, plain_type, type_name
from rlawrap.capture.sizes import SizeFloat, SizeInt, Term, plain, size, term_of
from rlawrap.capture.tensors import Tensors
from rlawrap.capture.terms import Terms
from rlawrap.capture.trace import Frame

_PLAIN = (
    bool, int, float, complex, str, torch.layout, torch.memory_format, range,
)  # fmt: skip


#: The types of PyTorch that Python's stand for, as in `dtype=float`.
_DTYPES: dict[type, torch.dtype] = {
    int: torch.int64,
    float: torch.float64,
    bool: torch.bool,
}


class Nodes:
    """What stands in a graph for the values that forward gives to a function."""

    def __init__(
        self,
        tensors: Tensors,
        terms: Terms,
        made: Callable[[fx.Node], fx.Node],
        lost: Callable[[str], Exception],
        frame: Callable[[], Frame],
    ) -> None:
        self.tensors, self.terms, self.graph = tensors, terms, tensors.graph
        self.made, self.lost, self.frame = made, lost, frame
        self._devices: dict[int, tuple[torch.device, Tensor | fx.Node]] = {}
        #: What `x.type()` returned, and of which tensor.
        self._types: dict[int, tuple[str, Tensor]] = {}
        self._dtypes: dict[tuple[Frame, torch.dtype], fx.Node] = {}
        self._attributes: dict[tuple[fx.Node, str], fx.Node] = {}

    def device_of(self, tensor: Tensor) -> torch.device:
        """The device of a tensor, which is known again where forward uses it."""
        shadow = self.tensors.shadow
        if not self.tensors.is_constant(tensor):
            node = self.tensors.node(tensor)
            made = torch.device(str(shadow.places.of(node)))
            self._devices[id(made)] = made, node
            return made
        made = torch.device(str(shadow.places.of_own(tensor)))
        if self.tensors.is_own(tensor):
            self._devices[id(made)] = made, tensor
        return made

    def dtype_of(self, tensor: Tensor) -> torch.dtype:
        """The type of a tensor; where the same call uses that type it is taken for this one's."""
        if not self.tensors.is_constant(tensor):
            self._dtypes.setdefault((self.frame(), tensor.dtype), self.tensors.node(tensor))
        return tensor.dtype

    def type_of(self, tensor: Tensor) -> str:
        """The old type of a tensor, which is known again where forward uses it."""
        made = type_name(tensor.dtype, self.device_of(tensor))
        if not self.tensors.is_constant(tensor):
            self._types[id(made)] = made, tensor
        return made

    def tensor_of_type(self, kind: Any) -> Tensor | None:
        """The tensor whose old type was asked for and is used now."""
        return self._types[id(kind)][1] if id(kind) in self._types else None

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
            if asked is None:
                return value
            source = asked[1]
            source = self.tensors.node(source) if isinstance(source, Tensor) else source
            return self._read(source, "device")
        if isinstance(value, type) and value in _DTYPES:
            return _DTYPES[value]
        if isinstance(value, torch.dtype):
            node = self._dtypes.get((self.frame(), value))
            return value if node is None else self._read(node, "dtype")
        if isinstance(value, TensorType):
            return plain_type(value)
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


def bare(value: Any) -> Any:
    """A value whose numbers have forgotten what they follow from."""
    if isinstance(value, (SizeInt, SizeFloat)):
        return plain(value)
    if isinstance(value, tuple):
        if not value:
            return value
        items = [bare(v) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if type(value) is list:
        return [bare(v) for v in value]
    if type(value) is dict:
        return {key: bare(v) for key, v in value.items()}
    if isinstance(value, slice):
        return slice(bare(value.start), bare(value.stop), bare(value.step))
    return value


def holds_tensor(value: Any) -> bool:
    """Whether a value is a tensor, or a list or tuple of some."""
    if isinstance(value, (tuple, list)):
        return any(map(holds_tensor, value))
    return isinstance(value, Tensor)
