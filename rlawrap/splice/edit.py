"""Design + graph -> the edited graph: injections, updates of h, and the classifier's share."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from rlawrap.capture.trace import Frame, Trace
from rlawrap.design import names
from rlawrap.design.design import BlockDesign, Design, Entry
from rlawrap.design.trained import last_name
from rlawrap.errors import PlanError
from rlawrap.flow.geometry import Resize, Step
from rlawrap.flow.references import References
from rlawrap.splice.cell_steps import write_step
from rlawrap.splice.inplace import protect
from rlawrap.splice.mixed import first_weight, is_mixed


class GraphEditor:
    """Writes a design into one traced graph whose modules `root` (base and `rla`) holds.

    `stacks` gains the module calls that each new node runs in: those of the layer that it adds to,
    and for a block's update of h those around the block. `now` says which node carries the value of
    a traced one after the edit.
    """

    def __init__(self, design: Design, trace: Trace, root: nn.Module) -> None:
        self.design, self.trace, self.root = design, trace, root
        self.graph = trace.graph
        self.modules = dict(root.named_modules(remove_duplicate=False))
        self.refs = References(trace)
        #: Whether h is brought to the device and the type of each of its layers.
        self.mixed = is_mixed(trace.root, trace.shadow.places)
        self.states: dict[int, tuple[fx.Node, ...]] = {}
        #: Layers of the base whose `inplace` had to be turned off.
        self.turned: list[str] = []
        self.stacks: dict[fx.Node, tuple[Frame, ...]] = dict(trace.stacks)
        self.now: dict[fx.Node, fx.Node] = {}
        #: Where h^0 is made.
        self.initial: list[fx.Node] = []
        self._frames: tuple[Frame, ...] = ()

    def run(self) -> None:
        """Edit the graph; it is the traced one, made for this and used nowhere else."""
        design = self.design
        outputs = [self.refs.node(s.block.output) for s in design.steps]
        inputs = [self.refs.node(s.input) for s in design.steps]
        sources = [self.refs.node(s.source) for s in design.steps]
        frames = [self._around(s.block.path, n) for s, n in zip(design.steps, outputs, strict=True)]
        taps = {}
        for step, node in zip(design.steps, outputs, strict=True):
            self._frames = frames[step.index]
            taps[node] = self._tap(step.index, node)
        inputs = [taps.get(n, n) for n in inputs]
        sources = [taps.get(n, n) for n in sources]
        for step, start, source in zip(design.steps, inputs, sources, strict=True):
            self._frames = frames[step.index]
            self._block(step, start, source, taps[outputs[step.index]])
        self._frames = ()
        self._head()
        self.graph.lint()

    def _around(self, block: str, output: fx.Node) -> tuple[Frame, ...]:
        """The module calls that a block lies in, itself left out."""
        stack = self.trace.stacks.get(output, ())
        return tuple(f for f in stack if block.startswith((f"{f[0]}.", f"{f[0]}[")))

    def _made(self, node: fx.Node) -> fx.Node:
        self.stacks[node] = self._frames
        return node

    def _module(self, path: str, args: tuple[Any, ...], behind: list[fx.Node]) -> fx.Node:
        with self._point([*behind, *[a for a in args if isinstance(a, fx.Node)]]):
            return self._made(self.graph.call_module(path, args))

    def _function(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        return self._made(self.graph.call_function(function, args))

    def _channels_first(self, node: fx.Node) -> fx.Node:
        dims = self.design.dims
        order = (0, dims + 1, *range(1, dims + 1))
        return self._made(self.graph.call_method("permute", (node, *order)))

    def _point(self, needs: list[fx.Node]) -> Any:
        """Insert behind the last of the nodes that a new one depends on."""
        last = needs[0]
        for node in needs[1:]:
            if last < node:
                last = node
        return self.graph.inserting_before(last.next)

    def _beside(self, value: fx.Node, paths: Iterable[str]) -> fx.Node:
        """A value, where the first weight of the modules at some paths lies and in its type.

        Without a weight there, or where all of a network lies in one place, the value itself.
        """
        found = ((path, first_weight(self.modules[path])) for path in paths if path in self.modules)
        weight = next((f"{path}.{name}" for path, name in found if name), None)
        if not self.mixed or weight is None:
            return value
        with self._point([value]):
            like = self._made(self.graph.get_attr(weight))
            return self._made(self.graph.call_method("to", (value, like)))

    def _tap(self, index: int, node: fx.Node) -> fx.Node:
        users = list(node.users)
        tap = self._module(names.output(index), (node,), [])
        for user in users:
            user.replace_input_with(node, tap)
        self.now[node] = tap
        return tap

    def _initial(self, like: fx.Node, last: bool) -> tuple[fx.Node, ...]:
        """h^0: zeros of k channels made from x, in its device, dtype and memory format."""
        k, dims = self.design.config.k, self.design.dims
        with self._point([like]):
            x = self._channels_first(like) if last else like
            one = self._function(operator.getitem, x, (slice(None), slice(None, 1)))
            zeros = self._function(torch.zeros_like, one)
            h = self._function(F.pad, zeros, [0, 0] * dims + [0, k - 1])
        self.initial.append(h)
        return (h,) * self.design.cell.states

    def _resized(
        self, path: str, steps: list[Step], state: tuple[fx.Node, ...], like: fx.Node
    ) -> tuple[fx.Node, ...]:
        if not steps:
            return state
        extra = (like,) if any(isinstance(s, Resize) for s in steps) else ()
        made: dict[fx.Node, fx.Node] = {}
        for h in state:
            if h not in made:
                made[h] = self._module(path, (h, *extra), [])
        return tuple(made[h] for h in state)

    def _block(self, step: BlockDesign, start: fx.Node, source: fx.Node, output: fx.Node) -> None:
        if not step.updates and not step.entries:
            return
        if step.parent is None:
            state = self._initial(start, step.input_channels_last)
        else:
            if step.parent not in self.states:
                raise PlanError(f"block {step.block.path!r} reads the state of a later block.")
            before = self.states[step.parent]
            state = self._resized(names.pool(step.index), step.bring, before, start)
        for entry in step.entries:
            if self._runs(entry.target):
                h = self._given(entry, state[0])
                self._join(names.inject(entry.name), entry, h, step.block.path)
        if step.updates:
            state = self._resized(names.down(step.index), step.down, state, output)
            self.states[step.index] = self._update(step, state, source, output)

    def _runs(self, target: str) -> bool:
        """Whether this mode runs a layer as eval mode does; the design notes where it does not."""
        return self.trace.names is None or self.refs.find(target) is not None

    def _join(self, path: str, entry: Entry, h: fx.Node, block: str) -> None:
        """Add what h's way makes, of h and what else it reads, to its layer's output."""
        others = tuple(take(self.refs.node(name)) for name, take in entry.reads)
        layer = self.refs.node(entry.target)
        self._add(path, entry.target, layer, (h, *others), block)

    def _add(
        self, path: str, target: str, layer: fx.Node, given: tuple[Any, ...], block: str
    ) -> None:
        """Add a path's result to what a layer of the base returns; it is `given` h and more."""
        h = given[0]
        given = (self._beside(h, [path]), *given[1:])
        if layer < h:
            raise PlanError(
                f"block {block!r}: {target!r} runs before the hidden state it should read exists; "
                "give the block another after= in the plan."
            )
        users = list(layer.users)
        frames, self._frames = self._frames, self.trace.stacks.get(layer, ())
        share = self._module(path, given, [layer])
        with self._point([share]):
            total = self._function(operator.add, layer, share)
        self._frames = frames
        for user in users:
            user.replace_input_with(layer, total)
        # Where the layer is a block's output as well, its tap reads the sum.
        if layer in self.now:
            self.now[total] = self.now[layer]
        self.now[layer] = total

    def _update(
        self, step: BlockDesign, state: tuple[fx.Node, ...], source: fx.Node, output: fx.Node
    ) -> tuple[fx.Node, ...]:
        source, turned = protect(self.modules, source)
        self.turned += turned
        behind = list(state)
        if step.channels_last:
            with self._point([source]):
                source = self._channels_first(source)
        if step.source_steps:
            source = self._module(names.scale(step.index), (source,), [])
        path = names.source(step.input_key)
        u = self._module(path, (self._beside(source, [path]),), behind)
        holders = {
            path: self.modules[path]
            for path in (names.cell(step.cell_key), names.block(step.index))
            if path in self.modules
        }
        u, *before = [self._beside(value, (*holders, path)) for value in (u, *state)]
        with self._point([u, *before]):
            return write_step(self.design.cell, holders, self.graph, self._made, u, tuple(before))

    def _head(self) -> None:
        design = self.design
        made: dict[str, fx.Node] = {}
        for entry in design.head:
            key = design.head_state(entry)
            if key not in made:
                made[key] = self._head_state(key, entry)
            h = made[key]
            path, target = names.join(entry.name), entry.target
            if self._runs(target):
                self._join(path, entry, h, "the head")
            elif entry.trained is not None:
                for layer in entry.shared:
                    layer = f"{path}.{layer}"
                    h = self._module(layer, (self._beside(h, [layer]),), [])
                trained = names.trained(entry.name)
                brought = self._module(trained, (self._beside(h, [trained]),), [])
                path = f"{path}.{last_name(entry.path)}"
                self._add(path, target, self.trace.elsewhere[target], (brought,), "the head")

    def _head_state(self, key: str, entry: Entry) -> fx.Node:
        """The h that joins a head, behind its norm and activation."""
        h = self._given(entry, self.states[entry.after][0])
        if self.design.head_norm:
            norm = names.head_norm(key)
            h = self._module(norm, (self._beside(h, [norm]),), [])
        if self.design.head_act != "none":
            h = self._module(names.HEAD_ACT, (h,), [])
        return h

    def _given(self, entry: Entry, h: fx.Node) -> fx.Node:
        """h as a layer may read it: detached, where the layer reads x so."""
        if not entry.detached:
            return h
        with self._point([h]):
            return self._made(self.graph.call_method("detach", (h,)))
