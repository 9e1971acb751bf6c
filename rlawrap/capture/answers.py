"""What forward asks of tensors: sizes, which keep what they are made of, and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlawrap.capture.nodes import bare
from rlawrap.capture.questions import UNKNOWN
from rlawrap.capture.sizes import Ask, StoredInt, Term, number, plain, size
from rlawrap.capture.tensors import Tensors
from rlawrap.capture.terms import Terms
from rlawrap.capture.values import item_of, list_of, numel_of, stride_of, values_of

_KEPT: dict[str, Callable[..., Any]] = {
    "item": item_of,
    "tolist": list_of,
    "__bool__": item_of,
    "is_nonzero": item_of,
}


class Answers:
    """Answers for one recorded call; `ask` is told of every comparison of sizes."""

    def __init__(
        self, tensors: Tensors, terms: Terms, ask: Ask, lost: Callable[[str], Exception]
    ) -> None:
        self.tensors, self.terms, self.ask, self.lost = tensors, terms, ask, lost

    def shape(self, tensor: Tensor) -> torch.Size:
        """The shape of a tensor; its numbers know where they come from."""
        if id(tensor) in self.tensors.stored:
            return torch.Size(map(StoredInt, tensor.shape))
        if self.tensors.is_constant(tensor):
            return tensor.shape
        node = self.tensors.node(tensor)
        self.terms.shapes[node] = tuple(tensor.shape)
        return torch.Size(
            number(n, Term(size, (node, i), n), self.ask) for i, n in enumerate(tensor.shape)
        )

    def rank(self, tensor: Tensor) -> int:
        """The number of axes, a plain number that the graph checks."""
        if not self.tensors.is_constant(tensor):
            self.terms.hold_rank(self.tensors.node(tensor), tensor.dim())
        return tensor.dim()

    def size(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """What `size`, `numel` and `stride` of a tensor return."""
        tensor = args[0]
        if name == "size":
            shape = self.shape(tensor)
            axis = args[1] if len(args) > 1 else kwargs.get("dim")
            return shape if axis is None else shape[plain(axis)]
        value = func(*bare(args), **bare(kwargs))
        if self.tensors.is_constant(tensor):
            return value
        function = stride_of if name == "stride" else numel_of
        term = Term(function, (self.tensors.node(tensor), *bare(args[1:])), value)
        return number(value, term, self.ask)

    def known(self, value: Any) -> Any:
        """An argument with numbers for its tensors of no axes: `torch.full(size, self.scale)`."""
        if isinstance(value, Tensor) and value.dim() == 0:
            return self._values_of(value)[0].item()
        if isinstance(value, slice):
            return slice(*map(self.known, (value.start, value.stop, value.step)))
        if isinstance(value, (tuple, list)):
            return type(value)(map(self.known, value))
        return {k: self.known(v) for k, v in value.items()} if isinstance(value, dict) else value

    def _values_of(self, tensor: Tensor) -> tuple[Tensor, bool]:
        known = {**self.tensors.constants, **self.tensors.attributes}
        return values_of(self.tensors.node(tensor), known, self.terms.worth, self.lost)

    def values(self, name: str, args: Any, kwargs: Any) -> Any:
        """What forward asks of a tensor's values, where sizes and constants decide them."""
        tensor, *rest = args
        if any(isinstance(a, Tensor) for a in rest):
            raise self.lost(UNKNOWN)
        node = self.tensors.node(tensor)
        value, sized = self._values_of(tensor)
        answer = getattr(value, name)(*rest, **kwargs)
        if not sized or name not in _KEPT:
            return answer
        return number(answer, Term(_KEPT[name], (node,), answer), self.ask)
