"""Walks over a graph: the few shapes in which a question about its nodes is asked.

Every walk is told where to go on: to the users of a node for a walk forward, to its sources for one
back, to nothing where it must stop. What the nodes are is no matter of this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from torch import fx

T = TypeVar("T", bound=Hashable)


def search(starts: Iterable[T], onward: Callable[[T], Iterable[T]]) -> Iterator[T]:
    """All that is reached from `starts`, they included: each once, the nearest first.

    >>> tree = {"a": "bc", "b": "d", "c": "d", "d": ""}
    >>> "".join(search("a", tree.__getitem__))
    'abcd'
    """
    seen = dict.fromkeys(starts)
    queue = deque(seen)
    while queue:
        node = queue.popleft()
        yield node
        for other in onward(node):
            if other not in seen:
                seen[other] = None
                queue.append(other)


def first_hits(
    starts: Iterable[T], onward: Callable[[T], Iterable[T]], hit: Callable[[T], bool]
) -> list[T]:
    """What is reached and answers `hit`, the nearest first; no walk leads through a hit.

    >>> first_hits([1], lambda n: [2 * n, 2 * n + 1], lambda n: n > 5)
    [6, 7, 8, 9, 10, 11]
    """
    hits: dict[T, None] = {}

    def beyond(node: T) -> Iterable[T]:
        if hit(node):
            hits[node] = None
            return ()
        return onward(node)

    for _ in search(starts, beyond):
        pass
    return list(hits)


def shortest(start: T, goal: T, onward: Callable[[T], Iterable[T]]) -> list[T] | None:
    """The nodes of a shortest way from `start` to `goal`, both included, or None.

    >>> shortest(1, 6, lambda n: [2 * n, n + 1] if n < 10 else [])
    [1, 2, 3, 6]
    """
    came: dict[T, T] = {}

    def noted(node: T) -> Iterator[T]:
        for other in onward(node):
            if other not in came and other != start:
                came[other] = node
                yield other

    if not any(node == goal for node in search([start], noted)):
        return None
    return chain(goal, came.get)[::-1]


def chain(start: T, onward: Callable[[T], T | None]) -> list[T]:
    """A straight way: `start` and what follows it, one after the other, up to None.

    >>> chain(3, lambda n: n - 1 if n else None)
    [3, 2, 1, 0]
    """
    nodes = [start]
    while (node := onward(nodes[-1])) is not None:
        nodes.append(node)
    return nodes


def only(items: Iterable[T]) -> T | None:
    """The one item of a set that has no other, or None.

    >>> only("a"), only("ab"), only("")
    ('a', None, None)
    """
    listed = list(items)
    return listed[0] if len(listed) == 1 else None


def ancestors(
    order: Sequence[fx.Node], sources: Mapping[fx.Node, Sequence[fx.Node]]
) -> dict[fx.Node, int]:
    """For each node that has `sources`, the bit set of those it derives from, itself included.

    Bit i is the i-th node of `order`, in which sources come first.
    """
    above: dict[fx.Node, int] = {}
    for i, node in enumerate(order):
        if node in sources:
            bits = 1 << i
            for source in sources[node]:
                bits |= above[source]
            above[node] = bits
    return above


def dominators(
    order: Iterable[fx.Node], sources: Mapping[fx.Node, Sequence[fx.Node]]
) -> dict[fx.Node, fx.Node | None]:
    """For each node the last one before it that every path to it passes; None where paths start
    apart. Sources come first in `order`."""
    passed: dict[fx.Node, fx.Node | None] = {}
    depth: dict[fx.Node | None, int] = {None: 0}
    for node in order:
        common: fx.Node | None = sources[node][0] if sources[node] else None
        for other in sources[node][1:]:
            a: fx.Node | None = common
            b: fx.Node | None = other
            while a is not b:
                if depth[a] >= depth[b]:
                    a = passed[a] if a is not None else None
                else:
                    b = passed[b] if b is not None else None
            common = a
        passed[node] = common
        depth[node] = depth[common] + 1
    return passed
