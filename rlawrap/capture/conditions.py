"""What a forward asks about shapes while it is traced: `if x.shape == y.shape`, `len(x.shape)`.

A Proxy has no shape. The nodes so far run on fake tensors of several sizes; an answer that all of
them share is taken. What depends on values has no answer, and what depends on the size only where
the user's example input settles the size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from rlawrap._torch import pytree, root_of
from rlawrap.capture.fake_runs import run_node
from rlawrap.capture.probes import candidate_inputs, fake_inputs, image_of
from rlawrap.capture.proxies import NoAnswer
from rlawrap.capture.trace import Trace, name_of
from rlawrap.walks import search

#: Questions about a tensor whose answers hold for good; its device or its gradient may change.
_LASTING = frozenset(
    "shape ndim dtype size dim ndimension numel nelement is_floating_point is_complex".split()
)


class Conditions:
    """Runs a growing graph on fake tensors, node by node, and answers from the results."""

    def __init__(self, trace: Trace, example: Any = None) -> None:
        self.trace, self.example = trace, example
        self.given: list[tuple[fx.Node, Callable[[Any], Any], Any]] = []
        if example is not None:
            self.tries = [tuple(image_of(example).shape)]
        else:
            self.tries = candidate_inputs(trace.root)
        self.modules = dict(trace.root.named_modules(remove_duplicate=False))
        self._start()

    def _start(self) -> None:
        shape = self.tries[0]
        self.sizes = [shape]
        if self.example is None:
            for more in (5, 10, 19, 36, -(min(shape[2:]) // 4)):
                spatial = tuple(n + more + 3 * i for i, n in enumerate(shape[2:]))
                self.sizes.append((shape[0] + 1, shape[1], *spatial))
        self.inputs = [fake_inputs(self.trace, self.example, s) for s in self.sizes]
        self.runs: list[dict[fx.Node, Any] | None] = [{} for _ in self.sizes]
        self.last: fx.Node = root_of(self.trace.graph)

    def answer(self, node: fx.Node, read: Callable[[Any], Any]) -> Any:
        """What `read` (bool, len, int) makes of a node at every size. Raises `NoAnswer`.

        Sizes are tried in turn, as when shapes are measured, until the network accepts one.
        """
        restarted = False
        while True:
            try:
                value = self._common(node, read)
                earlier = self.given if restarted else []
                if all(self._common(n, r) == known for n, r, known in earlier):
                    break
                problem = "its answers differ between the sizes tried"
            except _OtherSizeError as error:
                problem = str(error)
            if len(self.tries) == 1:
                raise NoAnswer(problem)
            self.tries.pop(0)
            self._start()
            restarted = True
        self.given.append((node, read, value))
        return value

    def _common(self, node: fx.Node, read: Callable[[Any], Any]) -> Any:
        self._advance()
        results = [
            (size, run[node]) for size, run in zip(self.sizes, self.runs, strict=True) if run
        ]
        (size, first), *others = results
        if isinstance(first, torch.Tensor):
            raise NoAnswer("it depends on the values of a tensor")
        if not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(first)):
            self._check_lasting(node)
        answer = read(first)
        for other, value in others:
            if read(value) != answer:
                raise NoAnswer(
                    f"it is {answer} for an input of {size} and {read(value)} for one of {other}; "
                    "example_input= settles the size"
                )
        return answer

    def _check_lasting(self, node: fx.Node) -> None:
        """Between tensors and this node stand only questions whose answers last."""
        run = self.runs[0] or {}

        def asked(current: fx.Node) -> list[fx.Node]:
            return [n for n in current.all_input_nodes if not isinstance(run.get(n), torch.Tensor)]

        for current in search([node], asked):
            name = current.args[1] if name_of(current) == "getattr" else name_of(current)
            if name not in _LASTING and len(asked(current)) < len(current.all_input_nodes):
                raise NoAnswer(f"it asks for {name!r} of a tensor, which may change")

    def _advance(self) -> None:
        """Run the nodes added since; a size that the network refuses drops out."""
        with self.trace.fake_mode, torch.no_grad():
            node = self.last.next
            while node.op != "root":
                for i, run in enumerate(self.runs):
                    if run is None:
                        continue
                    try:
                        values = self.inputs[i]
                        run[node] = run_node(self.trace, node, self.modules, run, values, None)
                    except Exception as error:
                        if i == 0:
                            raise _OtherSizeError(f"{node.name}: {error}") from None
                        self.runs[i] = None
                self.last = node
                node = node.next


class _OtherSizeError(Exception):
    """The network refuses the size that is tried."""
