"""Values of the graph of train mode that are those of eval mode's, and so have their names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from torch import fx

from rlawrap.capture.trace import Trace, name_of
from rlawrap.flow.references import frame_text, names_of, tensors_of


def _by_place(trace: Trace) -> dict[tuple[Any, ...], fx.Node]:
    """The values of a graph by the call, the line of code and the operation that made them."""
    found: dict[tuple[Any, ...], fx.Node] = {}
    counts: dict[tuple[Any, ...], int] = defaultdict(int)
    for i, node in enumerate(trace.graph.nodes):
        if node.op == "placeholder":
            found["placeholder", i] = node
        elif node.op in ("call_module", "call_function", "call_method"):
            what = str(node.target) if node.op == "call_module" else name_of(node)
            key = (trace.owner(node), trace.places.get(node), node.op, what)
            found[(*key, counts[key])] = node
            counts[key] += 1
    return found


def name_alike(
    evaluated: Trace, trained: Trace, same: Callable[[fx.Node, fx.Node], bool] = lambda a, b: True
) -> None:
    """Give the values of the train graph the references that they have in eval mode.

    `same` says whether two values may be one: those of unlike shapes are not.

    By their number they could not be told: a drop of branches, say, adds a product to the forward,
    and every later product would have another name. What only train mode computes has none. A layer
    that both modes call as often has its path for a name, whatever the line that calls it.
    """
    names = names_of(evaluated)
    twins = _by_place(trained)
    pairs = ((node, twins.get(key)) for key, node in _by_place(evaluated).items())
    trained.names = {t: names[n] for n, t in pairs if t is not None and same(n, t)}
    _name_layers(evaluated, trained, trained.names, same)
    _Alike(evaluated, trained, names, same).name()


def _name_layers(
    evaluated: Trace,
    trained: Trace,
    names: dict[fx.Node, str],
    same: Callable[[fx.Node, fx.Node], bool],
) -> None:
    """The layers that are called from other lines in train mode: on alike values, or elsewhere."""
    there = {frame: node for node, frame in evaluated.leaf_frames.items()}
    calls, trained_calls = (
        Counter(path for path, _ in trace.leaf_frames.values()) for trace in (evaluated, trained)
    )
    taken = set(names.values())
    for node, frame in trained.leaf_frames.items():
        text = frame_text(frame)
        if node in names or text in taken or calls[frame[0]] != trained_calls[frame[0]]:
            continue
        if same(there[frame], node):
            names[node] = text
        else:
            trained.elsewhere[text] = node


class _Alike:
    """Names for what the modes compute by other lines, or in other ways, for the same reader.

    What a module takes and returns is the same value in both modes. So is what alike operations
    read that make alike values: the one convolution that eval mode computes in the place of a sum
    of branches has that sum for its twin.
    """

    def __init__(
        self,
        evaluated: Trace,
        trained: Trace,
        names: dict[fx.Node, str],
        same: Callable[[fx.Node, fx.Node], bool],
    ) -> None:
        self.evaluated, self.trained, self.names, self.same = evaluated, trained, names, same
        self.named = {} if trained.names is None else trained.names
        self.twins = {name: node for node, name in names.items()}
        self.taken = set(self.named.values())

    def name(self) -> None:
        """Name the twins, those that are read last first."""
        for frame, call in self.trained.calls.items():
            twin = self.evaluated.calls.get(frame)
            if twin is not None:
                self._pair(twin.args, call.args)
                self._pair(twin.output, call.output)
        for t in reversed(list(self.trained.graph.nodes)):
            e = self.twins.get(self.named.get(t, ""))
            if e is not None and _alike(e, t):
                self._pair(e.args, t.args)

    def _pair(self, evaluated: Any, trained: Any) -> None:
        """Let the tensors of two trees be twins, in order, where neither has one."""
        pairs = [tensors_of(evaluated), tensors_of(trained)]
        if len(pairs[0]) != len(pairs[1]):
            return
        for e, t in zip(*pairs, strict=True):
            name = self.names.get(e)
            if t in self.named or name is None or name in self.taken or not self.same(e, t):
                continue
            self.named[t] = name
            self.taken.add(name)


def _alike(e: fx.Node, t: fx.Node) -> bool:
    """Whether two nodes do the same."""
    return e.op == t.op and e.op.startswith("call_") and name_of(e) == name_of(t)
