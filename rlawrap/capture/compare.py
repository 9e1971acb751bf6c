"""Two recordings of one network at two sizes: are they one graph, and for which sizes?

A size that escaped the record (through NumPy, `range(batch)`, a cache) is a constant in the graph,
and a wrong one at every other size. Recorded at two sizes, the two constants differ. An axis for
which two recordings do not agree is held at its size by an assertion.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, fx

from rlawrap._torch import ASSERT, ConvNd
from rlawrap.capture.trace import CannotFollow, Trace

Shape = tuple[int, ...]


class Likeness(enum.Enum):
    """How two recordings compare."""

    SAME = enum.auto()
    #: A condition on sizes had another answer: neither says anything of the other.
    OTHER_WAY = enum.auto()
    #: They differ, and no condition says why: a size is a constant in them.
    ESCAPED = enum.auto()


def compare(a: Trace, b: Trace) -> Likeness:
    """Whether two recordings are one graph: the same calls with the same constants."""
    first, second = list(a.graph.nodes), list(b.graph.nodes)
    twin = dict(zip(first, second, strict=False))
    for n, m in twin.items():
        if not _same_node(n, m, twin):
            # A condition is checked as it is or, where it did not hold, negated.
            ways = {ASSERT, operator.not_}
            return Likeness.OTHER_WAY if {n.target, m.target} == ways else Likeness.ESCAPED
    same = len(first) == len(second) and all(
        same_constant(a.constants[n], b.constants.get(n)) for n in a.constants
    )
    return Likeness.SAME if same else Likeness.ESCAPED


def _same_node(a: fx.Node, b: fx.Node, twin: dict[fx.Node, fx.Node]) -> bool:
    if (a.op, a.target) != (b.op, b.target):
        return False
    return same_value((a.args, a.kwargs), (b.args, b.kwargs), twin)


def same_value(a: Any, b: Any, twin: dict[fx.Node, fx.Node], *, modes: bool = False) -> bool:
    """Whether two arguments are alike, where `twin` has the node of `b` for one of `a`.

    With `modes` they may also differ as eval and train mode do: False in `a`, True in `b`.
    """
    if isinstance(a, fx.Node) or isinstance(b, fx.Node):
        return isinstance(a, fx.Node) and twin.get(a) is b
    if isinstance(a, (tuple, list)):
        return (
            isinstance(b, (tuple, list))
            and len(a) == len(b)
            and all(same_value(x, y, twin, modes=modes) for x, y in zip(a, b, strict=True))
        )
    if isinstance(a, dict):
        return (
            isinstance(b, dict)
            and a.keys() == b.keys()
            and all(same_value(a[k], b[k], twin, modes=modes) for k in a)
        )
    if isinstance(a, slice):
        return isinstance(b, slice) and same_value(
            (a.start, a.stop, a.step), (b.start, b.stop, b.step), twin, modes=modes
        )
    if modes and a is False and b is True:
        return True
    return same_constant(a, b)


def same_constant(a: Any, b: Any) -> bool:
    """Whether two constants are alike; what is not a number is its own like."""
    if isinstance(a, Tensor):
        return (
            isinstance(b, Tensor)
            and a.shape == b.shape
            and a.dtype == b.dtype
            and bool((a == b).all())
        )
    return type(a) is type(b) and (bool(a == b) or (a != a and b != b))


def other_sizes(shape: Shape) -> Iterator[Shape]:
    """Sizes to record a network at besides its own: of unlike sides, and another batch."""
    batch, spatial = shape[0] + 1, shape[2:]
    step = 32 if min(spatial) >= 64 or len(spatial) == 1 else 8
    for steps in (range(1, 9), range(8, 80, 8), range(3, 30, 3)):
        grown = [n + step * k for n, k in zip(spatial, steps, strict=False)]
        yield (batch, shape[1], *grown)
    for change in (spatial, [1] * len(spatial), [-1] * len(spatial)):
        yield (batch, shape[1], *(n + more for n, more in zip(spatial, change, strict=True)))


def confirm(trace: Trace, shape: Shape, again: Callable[[Shape], Trace]) -> tuple[bool, bool]:
    """Whether a recording at `shape` holds for other batches, and for other spatial sizes.

    `again` records at another size, and raises an error where the network does not run there. One
    size at which the two are the same is enough, unless there is one at which a size had escaped:
    rounding may make the same constant of sizes that lie side by side.
    """

    def at(other: Shape) -> Likeness | None:
        return _likeness(trace, again, other)

    others = list(other_sizes(shape))
    if at(others[0]) is Likeness.SAME:
        return True, True
    batches = dict.fromkeys((shape[0] + 1, max(1, shape[0] - 1), 3 * shape[0] + 1))
    likenesses = [at((n, *shape[1:])) for n in batches if n != shape[0]]
    batch = Likeness.SAME in likenesses and Likeness.ESCAPED not in likenesses
    for other in others:
        found = at((shape[0], *other[1:]))
        if found is Likeness.SAME or found is Likeness.ESCAPED:
            return batch, found is Likeness.SAME
    return batch, False


def second_axis_escapes(trace: Trace, shape: Shape, again: Callable[[Shape], Trace]) -> bool:
    """Whether a recording holds for one size of the second axis alone, and the network does not.

    It is the channels' where the first convolution reads it, which then takes no other number; the
    frames of a clip, or the electrodes of a recording, may be more or fewer.
    """
    leaves = [trace.leaf(n) for n in trace.graph.nodes if n.op == "call_module"]
    first = next((m for m in leaves if isinstance(m, ConvNd)), None)
    if first is None or (first.in_channels, len(first.kernel_size)) == (shape[1], len(shape) - 2):
        return False
    others = [(shape[0], n, *shape[2:]) for n in (shape[1] + 1, 2 * shape[1])]
    return any(_likeness(trace, again, other) is Likeness.ESCAPED for other in others)


def _likeness(trace: Trace, again: Callable[[Shape], Trace], other: Shape) -> Likeness | None:
    """A recording beside one at another size; None where the network does not run there."""
    try:
        return compare(trace, again(other))
    except CannotFollow:
        return Likeness.ESCAPED
    except Exception:
        return None


def pin(trace: Trace, shape: Shape, axes: list[int]) -> None:
    """Let the graph check that an input has the sizes that it was recorded at."""
    graph = trace.graph
    behind = list(graph.nodes)[trace.inputs - 1]
    names = {0: "batch size", 1: "second axis", **dict.fromkeys(range(2, len(shape)), "image size")}
    what = "batch size" if axes == [0] else " and ".join(dict.fromkeys(names[i] for i in axes))
    message = (
        f"this network was traced for the {what} of {tuple(shape)} and computes with it as a fixed "
        "number; give apply an input like this one as example_input="
    )
    before = set(graph.nodes)
    with graph.inserting_before(behind.next):
        held = graph.call_function(getattr, (trace.image, "shape"))
        for axis in axes:
            condition = graph.call_function(has_size, (held, axis, shape[axis]))
            graph.call_function(ASSERT, (condition, message))
    for node in graph.nodes:
        if node not in before:
            trace.stacks[node] = ()


def has_size(shape: Any, axis: int, size: int) -> bool:
    """Whether a tensor has a size along an axis."""
    return bool(shape[axis] == size)
