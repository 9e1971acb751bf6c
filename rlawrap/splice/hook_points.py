"""Where in a graph the hooks of blocks and stages belong, and the graph that runs them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from rlawrap._torch import global_hooks, hooks_source, pytree
from rlawrap.capture.generate import compile_source
from rlawrap.capture.trace import Frame, Trace
from rlawrap.splice.hooks import enter, leave


@dataclass(frozen=True)
class HookPoint:
    """One call of a module in a graph that runs its layers one by one."""

    path: str
    #: What the call gets and gives, as trees of nodes.
    args: Any
    kwargs: Any
    output: Any
    #: The nodes that run within the call.
    inside: frozenset[fx.Node]
    #: The first of them that the network itself makes: what h needs may be ready long before.
    first: fx.Node
    #: The numbers of the points that it lies in, innermost first.
    around: tuple[int, ...] = ()


@dataclass(frozen=True)
class HookedGraph:
    """A graph with hook points; `outer` gives a plain node's value as all who come later see it."""

    graph: fx.Graph
    outer: Mapping[fx.Node, fx.Node]


def _nodes(tree: Any) -> list[tuple[int, fx.Node]]:
    """The nodes in a tree of values, with the numbers of the leaves they are."""
    leaves = pytree.tree_leaves(tree)
    return [(i, leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, fx.Node)]


def find_points(
    trace: Trace,
    stacks: Mapping[fx.Node, tuple[Frame, ...]],
    now: Mapping[fx.Node, fx.Node],
) -> tuple[HookPoint, ...]:
    """The calls of a traced and edited graph that take and give tensors, outermost first.

    `stacks` are the calls that each node, those of h included, runs in; `now` says which node has
    the value of a traced node after the edit.
    """
    position = {node: i for i, node in enumerate(trace.graph.nodes)}
    inside: dict[Frame, set[fx.Node]] = {}
    for node, frames in stacks.items():
        for frame in frames if node in position else ():
            inside.setdefault(frame, set()).add(node)

    points: dict[Frame, HookPoint] = {}
    first: dict[Frame, int] = {}
    for frame, call in trace.calls.items():
        own = inside.get(frame)
        if not own or not _nodes((call.args, call.kwargs)) or not _nodes(call.output):
            continue
        begin = min((n for n in own if n in trace.stacks), key=position.__getitem__)
        first[frame] = position[begin]
        taken = (tuple(call.args), dict(call.kwargs))
        taken = latest(taken, trace, _before(position, first[frame]))
        args, kwargs = settled(taken, now)
        given = settled(latest(call.output, trace, own.__contains__), now, own)
        if all(n in position for _, n in _nodes((args, kwargs, given))):
            points[frame] = HookPoint(frame[0], args, kwargs, given, frozenset(own), begin)
    order = sorted(points, key=lambda f: (first[f], len(trace.calls[f].parents)))
    number = {frame: i for i, frame in enumerate(order)}
    return tuple(
        replace(
            points[frame],
            around=tuple(number[f] for f in reversed(trace.calls[frame].parents) if f in number),
        )
        for frame in order
    )


def _before(position: Mapping[fx.Node, int], when: int) -> Callable[[fx.Node], bool]:
    return lambda node: position[node] < when


def latest(tree: Any, trace: Trace, counts: Callable[[fx.Node], bool]) -> Any:
    """Traced values with what overwrote them in place, as far as that `counts`, in their stead."""

    def value(node: Any) -> Any:
        while written := [w for w in trace.writers.get(node, ()) if counts(w)]:
            node = written[-1]
        return node

    return pytree.tree_map_only(fx.Node, value, tree)


def settled(tree: Any, now: Mapping[fx.Node, fx.Node], own: set[fx.Node] | None = None) -> Any:
    """Traced nodes as they are after the edit; of a call's output, as far as the call makes it."""

    def value(node: Any) -> Any:
        while node in now and (own is None or now[node] in own):
            node = now[node]
        return node

    return pytree.tree_map_only(fx.Node, value, tree)


class _Hooker:
    """Writes hook points into a copy of a graph."""

    def __init__(self, graph: fx.Graph, points: tuple[HookPoint, ...]) -> None:
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        for node in graph.nodes:
            self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)
        self.points = points
        self.passages: list[fx.Node] = []
        #: By number of a point: what its own nodes read in place of a node from outside.
        self.arrived: list[dict[fx.Node, fx.Node]] = []
        self.outer: dict[fx.Node, fx.Node] = {}

    def run(self) -> HookedGraph:
        for i in range(len(self.points)):
            self._enter(i)
        for i in reversed(range(len(self.points))):
            self._leave(i)
        outer = {**self.copies, **self.outer}
        self.graph.lint()
        return HookedGraph(self.graph, outer)

    def _value(self, node: fx.Node, around: tuple[int, ...]) -> fx.Node:
        """A node's value as the nodes of the innermost of some points read it."""
        for j in around:
            if node in self.arrived[j]:
                return self.arrived[j][node]
        return self.copies[node]

    def _enter(self, i: int) -> None:
        point = self.points[i]
        around = point.around
        taken = (point.args, point.kwargs)
        nodes = _nodes(taken)
        first = self.copies[point.first]
        read = pytree.tree_map(
            lambda v: self._value(v, around) if isinstance(v, fx.Node) else v, taken
        )
        with self.graph.inserting_before(first):
            module = self.graph.get_attr(point.path)
            where = tuple(index for index, _ in nodes)
            entered = self.graph.call_function(enter, (module, *read, where))
            passage = self.graph.call_function(operator.getitem, (entered, 0))
            values = {
                node: self.graph.call_function(operator.getitem, (entered, n + 1))
                for n, (_, node) in enumerate(nodes)
            }
        self.passages.append(passage)
        self.arrived.append(values)
        own = {self.copies[n] for n in point.inside}
        for node, value in values.items():
            before = self._value(node, around)
            for user in list(before.users):
                if user in own and passage < user:
                    user.replace_input_with(before, value)

    def _leave(self, i: int) -> None:
        point = self.points[i]
        nodes = _nodes(point.output)
        own = {self.copies[n] for n in point.inside}
        around = (i, *point.around)

        def inner(node: fx.Node) -> fx.Node:
            # A call may hand on what it got, or what a call within it returned.
            return self.outer.get(node) or self._value(node, around)

        given = pytree.tree_map(lambda v: inner(v) if isinstance(v, fx.Node) else v, point.output)
        last = max((*(inner(n) for _, n in nodes), *own, self.passages[i]), key=self._place)
        with self.graph.inserting_before(last.next):
            where = tuple(index for index, _ in nodes)
            left = self.graph.call_function(leave, (self.passages[i], given, where))
            values = [
                self.graph.call_function(operator.getitem, (left, n)) for n in range(len(nodes))
            ]
        kept = own | {left}
        for (_, node), value in zip(nodes, values, strict=True):
            if node not in point.inside and node not in self.outer:
                continue  # handed on as it came: who reads it later reads the one from outside
            before = inner(node)
            for user in list(before.users):
                if user not in kept and left < user:
                    user.replace_input_with(before, value)
            self.outer[node] = value

    @staticmethod
    def _place(node: fx.Node) -> Any:
        return _Order(node)


class _Order:
    """Orders nodes as their graph does."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node

    def __lt__(self, other: _Order) -> bool:
        return bool(self.node < other.node)


def with_hook_points(graph: fx.Graph, points: tuple[HookPoint, ...]) -> HookedGraph:
    """A copy of a graph that runs the hooks of the modules whose calls it has dissolved."""
    return _Hooker(graph, points).run()


def keep_points(
    points: tuple[HookPoint, ...], copies: Mapping[fx.Node, fx.Node], left: set[fx.Node]
) -> tuple[HookPoint, ...]:
    """The points of a copied graph whose calls are whole there: all they get and give is `left`."""
    number: dict[int, int] = {}
    kept: list[HookPoint] = []
    for i, point in enumerate(points):
        whole = (point.args, point.kwargs, point.output)
        inside = frozenset(copies[n] for n in point.inside if copies[n] in left)
        ends = (*(n for _, n in _nodes(whole)), point.first)
        if not inside or not all(copies[n] in left for n in ends):
            continue
        args, kwargs, output = pytree.tree_map_only(fx.Node, copies.__getitem__, whole)
        around = tuple(number[j] for j in point.around if j in number)
        number[i] = len(kept)
        kept.append(
            HookPoint(point.path, args, kwargs, output, inside, copies[point.first], around)
        )
    return tuple(kept)


def hook_check(paths: Iterable[str], guarded: set[str]) -> Callable[[nn.Module], bool]:
    """A function of the network: whether one of the modules at `paths` has hooks to be run.

    A module in `guarded` has one pre-hook of ours; one that was taken out (`model.aux1 = None`) has
    none to run.
    """
    tests = {path: (hooks_source("{}", int(path in guarded)), False) for path in paths}
    return _check(tests, {})


def layer_check(
    layers: Mapping[str, tuple[type[nn.Module], int]], guarded: set[str]
) -> Callable[[nn.Module], bool]:
    """A function of the network: whether one of these layers has hooks or is another than it was.

    layers: by their paths, their classes and how many modules they hold. Norms that were
    synchronised between processes since are what they were.
    """
    classes = {cls for cls, _ in layers.values()}
    kinds = {f"c{i}": (cls, nn.SyncBatchNorm) for i, cls in enumerate(classes)}
    names = {kind[0]: name for name, kind in kinds.items()}
    tests = {}
    for path, (cls, held) in layers.items():
        hooks = hooks_source("{}", int(path in guarded))
        changed = f"type({{}}) not in {names[cls]} or len({{}}._modules) != {held}"
        tests[path] = (f"{changed} or {hooks}", True)
    return _check(tests, kinds)


def _check(
    tests: Mapping[str, tuple[str, bool]], names: Mapping[str, Any]
) -> Callable[[nn.Module], bool]:
    """A function of the network that says whether one of some tests holds.

    `tests` has, by the path of a module, a test of "{}", and what a module that is gone means.
    It runs at every forward, so it is generated: plain dictionary look-ups, each module once.
    """
    lines = ["def hooked(self):", "    if global_hooks():", "        return True"]
    found = {"": "self"}
    for path in sorted({part for p in tests for part in _prefixes(p)}):
        parent, _, name = path.rpartition(".")
        found[path] = f"m{len(found)}"
        value = f"{found[parent]}._modules.get({name!r})"
        if parent:
            value += f" if {found[parent]} is not None else None"
        lines.append(f"    {found[path]} = {value}")
    for path, (test, gone) in tests.items():
        is_gone = f"{found[path]} is {'' if gone else 'not '}None {'or' if gone else 'and'}"
        lines.append(f"    if {is_gone} ({test.replace('{}', found[path])}):")
        lines.append("        return True")
    lines.append("    return False")
    source = "\n".join(lines) + "\n"
    check: Callable[[nn.Module], bool] = compile_source(
        source, {"global_hooks": global_hooks, **names}, "hooks"
    )["hooked"]
    return check


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]
