"""What a rewritten network runs in one mode: its graph, and the functions compiled from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import fx, nn

from rlawrap._torch import forget_tracer
from rlawrap.capture.generate import compile_graph
from rlawrap.capture.trace import Trace
from rlawrap.copying import copy_graph
from rlawrap.splice.edit import GraphEditor
from rlawrap.splice.hook_points import (
    HookPoint,
    find_points,
    keep_points,
    settled,
    with_hook_points,
)
from rlawrap.splice.methods import MethodGraph, method_graphs
from rlawrap.splice.sparing import Spared

Forward = Callable[..., object]
#: How a program runs: as `Spared` has it, as it was written, or with the hooks of its hook points.
Form = Literal["spared", "written", "hooked"]


@dataclass(frozen=True)
class Method:
    """A method of the base, cut out of the graph; without functions where that cannot be done."""

    graph: MethodGraph
    plain: Forward | None
    hooked: Forward | None


@dataclass(frozen=True)
class Program:
    """One mode of a rewritten network.

    `graph` computes the network, `hooked_graph` also runs the hooks of blocks and stages, and
    `spared` is what runs where nobody looks on. They and the functions made of them are shared by
    all copies of a model and never changed.
    """

    graph: fx.Graph
    hooked_graph: fx.Graph
    spared: Spared
    points: tuple[HookPoint, ...]
    plain: Forward
    hooked: Forward
    methods: Mapping[str, Method]
    #: By a block's number the node of `graph` that carries its h; a cut graph has those it needs.
    states: Mapping[int, fx.Node]
    #: Where `graph` makes h^0.
    initial: tuple[fx.Node, ...]

    @cached_property
    def _written(self) -> Forward:
        return compile_graph(self.graph, "forward as written")  # few ask for it

    def function(self, form: Form) -> Forward:
        """The function of this mode in a form."""
        if form == "written":
            return self._written
        return self.hooked if form == "hooked" else self.plain

    def graph_of(self, form: Form) -> fx.Graph:
        """The graph that this form is made of."""
        if form == "written":
            return self.graph
        return self.hooked_graph if form == "hooked" else self.spared.graph


def make_program(editor: GraphEditor, trace: Trace, base: type[nn.Module]) -> Program:
    """Compile an edited graph; `base` is the class whose methods are cut out of it."""
    graph = trace.graph
    points = find_points(trace, editor.stacks, editor.now)
    hooked = with_hook_points(graph, points)
    plain_methods = method_graphs(graph, trace, lambda n: settled(n, editor.now), base)
    hooked_methods = method_graphs(
        hooked.graph, trace, lambda n: hooked.outer[settled(n, editor.now)], base
    )
    spared = Spared.of(graph, editor.modules, editor.initial)
    forwards = {
        graph: compile_graph(spared.graph, "forward"),
        hooked.graph: compile_graph(hooked.graph, "forward with hooks"),
    }

    def compiled(part: fx.Graph | None, name: str) -> Forward | None:
        return None if part is None else forwards.get(part) or compile_graph(part, name)

    methods = {
        name: Method(
            cut,
            compiled(cut.graph, name),
            compiled(hooked_methods[name].graph, f"{name} with hooks"),
        )
        for name, cut in plain_methods.items()
        if name in hooked_methods
    }
    states = {index: state[0] for index, state in editor.states.items()}
    return Program(
        portable(graph),
        portable(hooked.graph),
        spared,
        points,
        forwards[graph],
        forwards[hooked.graph],
        methods,
        states,
        tuple(editor.initial),
    )


def spared_layers(
    programs: Mapping[bool, Program],
) -> dict[str, tuple[type[nn.Module], int]]:
    """The layers that spared graphs call otherwise than they are written."""
    return {path: kind for p in programs.values() for path, kind in p.spared.layers.items()}


def cut_program(
    program: Program, cut: Callable[[fx.Graph], None], modules: Mapping[str, nn.Module]
) -> Program:
    """A program whose graph was cut by `cut`, which gets a copy of it; it has no methods."""
    graph, copies = copy_graph(program.graph)
    cut(graph)
    left = set(graph.nodes)
    points = keep_points(program.points, copies, left)
    hooked = with_hook_points(graph, points).graph
    initial = tuple(copies[h] for h in program.initial if copies[h] in left)
    spared = Spared.of(graph, modules, initial)
    return Program(
        graph,
        hooked,
        spared,
        points,
        compile_graph(spared.graph, "backbone"),
        compile_graph(hooked, "backbone with hooks"),
        {},
        {index: copies[node] for index, node in program.states.items() if copies[node] in left},
        initial,
    )


def portable(graph: fx.Graph) -> fx.Graph:
    """The graph without the tracer it came from and the shadow's values in its metadata."""
    forget_tracer(graph)
    for node in graph.nodes:
        node.meta.clear()
    return graph
