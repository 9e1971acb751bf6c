"""Terms -> nodes: numbers that follow from sizes, and the conditions that were taken to hold."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from rlawrap._torch import ASSERT
from rlawrap.capture.sizes import Term, size

ANOTHER_WAY = (
    "this network was traced for inputs of another size or kind, with which its forward goes "
    "another way; give apply an input like this one as example_input="
)
_ASSERTED = "an assertion in the forward of the network"


def has_rank(tensor: Tensor, rank: int) -> bool:
    """Whether a tensor has so many axes."""
    return tensor.dim() == rank


@dataclass(frozen=True)
class Guard:
    """A condition on sizes that forward asked for, and its answer."""

    term: Term
    truth: bool
    asserted: bool


class Terms:
    """Writes terms into a growing graph, each once."""

    def __init__(
        self,
        graph: fx.Graph,
        made: Callable[[fx.Node], fx.Node],
        made_at_front: Callable[[fx.Node], fx.Node],
    ) -> None:
        self.graph, self.made, self.made_at_front = graph, made, made_at_front
        self.nodes: dict[Any, fx.Node] = {}
        #: What the nodes that are made here are worth in this call.
        self.worth: dict[fx.Node, Any] = {}
        #: The shapes of the tensors that were asked for theirs.
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        #: The network's inputs, taken apart, and what was written behind them.
        self.inputs: list[fx.Node] = []
        self._front: dict[Any, fx.Node] = {}
        self._known: set[Any] = set()

    def node(self, term: Any) -> Any:
        """The node of a term, made now if there is none; plain numbers as they are."""
        return self._node(term, self.nodes)

    def _node(self, term: Any, nodes: dict[Any, fx.Node]) -> Any:
        if not isinstance(term, Term):
            return term
        if term.key in self._front:
            return self._front[term.key]
        if term.key not in nodes:
            nodes[term.key] = self._make(term, nodes)
        return nodes[term.key]

    def _make(self, term: Term, nodes: dict[Any, fx.Node]) -> fx.Node:
        if term.function is size:
            source, axis = term.args
            shape = self.shape(source, nodes)
            node = self.made(self.graph.call_function(operator.getitem, (shape, axis)))
        else:
            args = tuple(self._node(a, nodes) for a in term.args)
            node = self.made(self.graph.call_function(term.function, args))
        self.worth[node] = term.value
        return node

    def shape(self, source: fx.Node, nodes: dict[Any, fx.Node] | None = None) -> fx.Node:
        """The node of a tensor's whole shape."""
        nodes = self.nodes if nodes is None else nodes
        key = ("shape", source)
        if key in self._front:
            return self._front[key]
        if key not in nodes:
            nodes[key] = self.made(self.graph.call_function(getattr, (source, "shape")))
            self.worth[nodes[key]] = self.shapes[source]
        return nodes[key]

    def hold(self, guard: Guard) -> None:
        """Let the graph check a condition, as early as it can be.

        What the inputs decide is checked before anything runs: a forward that stops in its middle
        would have changed its batch norms by then.
        """
        key = (guard.term.key, guard.truth)
        if key in self._known:
            return
        self._known.add(key)
        message = _ASSERTED if guard.asserted else ANOTHER_WAY
        if all(root in self.inputs for root in guard.term.roots()):
            self.at_front(lambda: self._check(guard, message, self._front))
        else:
            self._check(guard, message, self.nodes)

    def hold_rank(self, source: fx.Node, rank: int) -> None:
        """Let the graph check the number of axes of a tensor."""
        key = ("rank", source)
        if key in self._known:
            return
        self._known.add(key)

        def check() -> None:
            condition = self.made(self.graph.call_function(has_rank, (source, rank)))
            self.made(self.graph.call_function(ASSERT, (condition, ANOTHER_WAY)))

        if source in self.inputs:
            self.at_front(check)
        else:
            check()

    def at_front(self, make: Callable[[], Any]) -> None:
        """Let `make` add nodes behind the inputs and what was added there before."""
        made: list[fx.Node] = []
        original = self.made

        def noted(node: fx.Node) -> fx.Node:
            made.append(node)
            return self.made_at_front(node)

        self.made = noted
        try:
            with self.graph.inserting_before(self.inputs[-1].next):
                make()
        finally:
            self.made = original
        self.inputs += made

    def _check(self, guard: Guard, message: str, nodes: dict[Any, fx.Node]) -> None:
        condition = self._node(guard.term, nodes)
        if not guard.truth:
            condition = self.made(self.graph.call_function(operator.not_, (condition,)))
        self.made(self.graph.call_function(ASSERT, (condition, message)))
