"""Shapes of every node at several input sizes, on meta tensors: no memory, no arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from rlawrap._torch import ASSERT, last_node, pytree
from rlawrap.capture.arguments import make_arguments, placeholder_values
from rlawrap.capture.fake_runs import keeps_shapes, run_node
from rlawrap.capture.probes import Shape, odd_at_every_depth, one_above_even, probes_of
from rlawrap.capture.trace import Trace
from rlawrap.errors import PlanError, for_whole


@dataclass(frozen=True)
class Shapes:
    """For every node, its shape at each probe size; None where the network refused that size."""

    table: Mapping[fx.Node, tuple[Shape | None, ...]]
    inputs: tuple[Shape, ...]
    dtypes: Mapping[fx.Node, torch.dtype]
    #: Numbers, and tuples of them, that forward computes and that no probe size changes; `number`
    #: asks the deep ones, too.
    numbers: Mapping[fx.Node, Any]
    #: Modules kept whole that return tensors in a list, a tuple or a dict.
    holders: frozenset[fx.Node] = frozenset()
    #: Shapes and numbers at `odd_at_every_depth` and `one_above_even`, once they are asked; without
    #: what the network refuses.
    deep: Callable[[], tuple[Mapping[fx.Node, Any], ...]] = tuple

    def of(self, node: fx.Node, probe: int = 0) -> Shape | None:
        row = self.table.get(node)
        return row[probe] if row else None

    def rows(self, node: fx.Node) -> tuple[Shape | None, ...]:
        return self.table.get(node, (None,) * len(self.inputs))

    def number(self, node: fx.Node) -> Any:
        """The number that forward computes at any size; the node where sizes change it.

        Deep down the sizes at the probes may all be even, and an odd one is padded by another.
        """
        if node not in self.numbers:
            return node
        value = self.numbers[node]
        return value if all(run.get(node, value) == value for run in self.deep()) else node


def same_shapes(a: Sequence[Shape | None], b: Sequence[Shape | None]) -> bool:
    """Whether two values have one shape at the first probe, and at all others that both take.

    >>> same_shapes([(2, 8), (2, 9), None], [(2, 8), None, (2, 7)]), same_shapes([None], [(2, 8)])
    (True, False)
    """
    more = zip(a[1:], b[1:], strict=True)
    return a[0] == b[0] and all(x == y for x, y in more if x is not None and y is not None)


def values_at(trace: Trace, example: Any, shape: Shape) -> dict[str, Any]:
    """What the placeholders of a trace are given for images of a shape."""
    return placeholder_values(make_arguments(trace.shadow, example, shape))


@dataclass(frozen=True)
class Refusal:
    """The first error of a run: where it was raised, and in words."""

    node: fx.Node
    text: str

    @property
    def ours(self) -> bool:
        """Whether it is a check of ours: another way, or a size that is held."""
        return self.node.target is ASSERT

    def __str__(self) -> str:
        return self.text


def propagate(trace: Trace, values: Mapping[str, Any]) -> tuple[dict[fx.Node, Any], Refusal | None]:
    """Run the graph on meta tensors; what follows a failure is left out. Also the first error."""
    env: dict[fx.Node, Any] = {}
    modules = trace.shadow.modules
    known: dict[Any, Any] | None = trace.known if keeps_shapes(trace) else None
    error: Refusal | None = None
    lost: set[fx.Node] = set()
    trace.root.eval()
    with torch.no_grad():
        for node in trace.graph.nodes:
            if any(source in lost for source in node.all_input_nodes):
                lost.add(node)
                continue
            try:
                env[node] = run_node(trace, node, modules, env, values, known)
            except Exception as problem:
                lost.add(node)
                message = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
                error = error or Refusal(node, f"{_place(trace, node)}: {message}")
    return env, error


def _place(trace: Trace, node: fx.Node) -> str:
    """Where a node lies, in the user's words: the module it calls or the forward it stands in."""
    leaf = trace.leaf(node)
    if leaf is not None:
        return f"module {str(node.target)!r} ({type(leaf).__name__})"
    path = trace.owner(node)[0]
    owner = f"module {path!r}" if path else f"the forward of {type(trace.root).__name__}"
    return f"{getattr(node.target, '__name__', node.target)} in {owner}"


def keeps_images_apart(trace: Trace, env: Mapping[fx.Node, Any], batch: int) -> bool:
    """Whether some tensor returned has a row for each image.

    `x.view(-1, 8 * 4 * 4)` before a classifier takes any larger image for several.
    """
    output = last_node(trace.graph)
    returned = [env[n] for n in output.all_input_nodes if isinstance(env.get(n), torch.Tensor)]
    return not returned or any(value.shape[:1] == (batch,) for value in returned)


def measure(
    trace: Trace,
    example: Any,
    shape: Shape,
    env: dict[fx.Node, Any] | None = None,
    *,
    held: bool = False,
) -> tuple[Shapes, list[str]]:
    """Shapes at a size that runs and at its probes, and notes on the sizes that it refuses.

    `env` is what `propagate` finds at the size itself, where that is known; `held` says that the
    graph takes no other size, which is no news.
    """
    if env is None:
        env, error = propagate(trace, values_at(trace, example, shape))
        if error is not None:
            text = f"{type(trace.root).__name__} fails at {tuple(shape)}: {error}".rstrip(".")
            raise for_whole(PlanError, f"{text}.")
    runs, inputs, notes = [env], [shape], []
    apart = keeps_images_apart(trace, env, shape[0])
    for other in probes_of(shape)[1:]:
        run, error = propagate(trace, values_at(trace, example, other))
        if error is not None and error.ours and not held:
            size = "x".join(map(str, other[2:]))
            notes.append(
                f"at {size} its forward goes another way or raises an error, and the rewritten "
                "network refuses it: it has the way of one size (example_input= chooses it)"
            )
        elif error is not None and not error.ours:
            notes.append(f"the network itself refuses {'x'.join(map(str, other[2:]))} ({error})")
        elif apart and not keeps_images_apart(trace, run, other[0]):
            _drop_folded(trace, env, run, other[0])
            notes.append(f"at {'x'.join(map(str, other[2:]))} the network takes one image for more")
        runs.append(run)
        inputs.append(other)
    table, dtypes, numbers = {}, {}, {}
    for node in trace.graph.nodes:
        value = env.get(node)
        if _plain(value) and all(node not in run or run[node] == value for run in runs):
            numbers[node] = value
        rows = tuple(
            tuple(int(n) for n in run[node].shape)
            if isinstance(run.get(node), torch.Tensor)
            else None
            for run in runs
        )
        if rows[0] is not None:
            table[node] = rows
            dtypes[node] = env[node].dtype
    holders = frozenset(
        n for n in trace.graph.nodes if n.op == "call_module" and _holds_tensor(env.get(n))
    )
    others = (odd_at_every_depth(shape), one_above_even(shape))
    deep = functools.cache(lambda: tuple(_at(trace, example, other, apart) for other in others))
    return Shapes(table, tuple(inputs), dtypes, numbers, holders - set(table), deep), notes


def _at(trace: Trace, example: Any, other: Shape, apart: bool) -> dict[fx.Node, Any]:
    """The shapes and the numbers at another size, as far as the network comes."""
    run, _ = propagate(trace, values_at(trace, example, other))
    if apart and not keeps_images_apart(trace, run, other[0]):
        return {}
    shapes = {n: tuple(map(int, v.shape)) for n, v in run.items() if isinstance(v, torch.Tensor)}
    return shapes | {n: v for n, v in run.items() if _plain(v)}


def _holds_tensor(value: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))


def _drop_folded(
    trace: Trace, env: Mapping[fx.Node, Any], run: dict[fx.Node, Any], batch: int
) -> None:
    """Take out of a run what derives from the tensor in which images got mixed."""
    lost: set[fx.Node] = set()
    for node in trace.graph.nodes:
        first, value = env.get(node), run.get(node)
        folded = (
            isinstance(first, torch.Tensor)
            and isinstance(value, torch.Tensor)
            and first.shape[:1] == (batch,) != value.shape[:1]
        )
        if folded or any(source in lost for source in node.all_input_nodes):
            lost.add(node)
            run.pop(node, None)


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_plain, value))
    return isinstance(value, (bool, int, float, str))
