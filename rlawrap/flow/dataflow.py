"""The data flow of a trace: nodes that carry the image, their layout, and what dominates what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import fx

from rlawrap.capture.shapes import Shapes
from rlawrap.capture.trace import Trace
from rlawrap.errors import PlanError, for_whole
from rlawrap.flow.operations import Ops
from rlawrap.walks import ancestors, chain, dominators


class Flow:
    """Data nodes (tensors derived from the input) of a trace, their ancestors, sizes and layout."""

    def __init__(self, trace: Trace, shapes: Shapes) -> None:
        self.trace = trace
        self.shapes = shapes
        self.ops = Ops(trace, shapes)
        self.nodes: list[fx.Node] = list(trace.graph.nodes)
        self.position = {node: i for i, node in enumerate(self.nodes)}
        self._axes: dict[fx.Node, int | None] = {}
        #: Images whose axis of channels nothing tells: it is taken for the first behind the batch.
        self._guessed: set[fx.Node] = set()
        self._sizes: dict[fx.Node, tuple[tuple[int, ...] | None, ...]] = {}
        self.data = self._find_data()
        #: How many axes the images of most layers and joins have, and how many images a batch.
        self.rank, self.batch = self._find_body()
        self.sources = {n: self._read_by(n) for n in self.data}
        for node in self.nodes:  # in order, since an axis is carried along
            if node in self.data:
                self.channel_axis(node)
        self.above = ancestors(self.nodes, self.sources)
        self._convs = self.bits(n for n in self.data if self.ops.conv(n) is not None)
        self._taught = self._find_taught()
        self.images = [n for n in trace.images if n in self.data]
        #: The returned tensors that derive from the input, and of these the main one.
        self.outputs = self._find_outputs()
        self.main_output = self._find_main_output()
        self._alive = 0
        for node in self.outputs:
            self._alive |= self.above[node]
        #: The last node before each that every path to it passes.
        self.passed = dominators(self.members(self._alive), self.sources)
        #: Nodes that every path from the input to the main output passes, in order.
        self.trunk = chain(self.main_output, self.passed.get)[::-1]

    def _find_data(self) -> set[fx.Node]:
        data: set[fx.Node] = set()
        for node in self.nodes:
            if node in self.trace.images:
                if self.shapes.of(node) is not None and node.users:
                    data.add(node)
            elif (
                node.op not in ("get_attr", "output")
                and self._carries_tensor(node)
                and any(source in data for source in node.all_input_nodes)
            ):
                data.add(node)
        return data

    def _read_by(self, node: fx.Node) -> list[fx.Node]:
        """The data that a node reads; for a convolution with its batch in the channels, at whose
        end it stands, that are the images and their filters."""
        read, image = node.all_input_nodes, self.ops.image(node)
        if image is not None:
            read = [image, *read[0].all_input_nodes[1:]]
        return [source for source in read if source in self.data]

    def _find_body(self) -> tuple[int, int]:
        """The rank and the batch of what most layers and joins return; of equals the input's.

        They differ from the input's where forward unsqueezes signals, stacks features into a
        volume, or puts the frames of clips into the batch.
        """
        first = self.shapes.inputs[0]
        kinds: dict[tuple[int, int], set[object]] = {(len(first), first[0]): set()}
        for node in self.nodes:
            conv, shape = self.ops.conv(node), self.shapes.of(node)
            if node not in self.data or conv is None or conv.window is None or shape is None:
                continue
            if len(shape) == len(conv.window.kernel) + 2:  # no single image without a batch
                layer = node.target if node.op == "call_module" else node  # one, however often run
                kinds.setdefault((len(shape), shape[0]), set()).add(layer)
        for node in self.data:  # windows of an image are convolved, and joined as one image
            shape = self.shapes.of(node)
            joins = self.ops.add_operands(node) or self.ops.cat_operands(node)
            if joins and shape and (len(shape), shape[0]) in kinds:
                kinds[len(shape), shape[0]].add(node)
        return max(kinds, key=lambda kind: len(kinds[kind]))  # the first of equals

    def _carries_tensor(self, node: fx.Node) -> bool:
        """A tensor, or tensors in a tuple that `getitem` nodes take apart, or that is returned."""
        if self.shapes.of(node) is not None or node in self.shapes.holders:
            return True
        return any(
            user.op == "call_function"
            and getattr(user.target, "__name__", "") == "getitem"
            and self.shapes.of(user) is not None
            for user in node.users
        )

    def alive(self, node: fx.Node) -> bool:
        """Whether an output of the network is computed from a node of the data."""
        return bool(self._alive >> self.position[node] & 1)

    def derives(self, node: fx.Node, source: fx.Node) -> bool:
        """Whether `node` is computed from `source` (or is it)."""
        return bool(self.above.get(node, 0) >> self.position[source] & 1)

    def severed(self, node: fx.Node, source: fx.Node) -> bool:
        """Whether `node` reads convolutions, that a gradient of `source` reaches, detached alone.

        What takes `source` to `node` by another way must be detached, too, or it teaches them.
        """
        seen_only = self.above.get(node, 0) & ~self._taught.get(node, 0)
        return bool(seen_only & self._taught.get(source, 0) & self._convs)

    def inputs(self, node: fx.Node) -> frozenset[str]:
        """Names of the network's inputs that a data node derives from."""
        images = self.trace.images
        return frozenset(images[n] for n in self.images if self.derives(node, n))

    def members(self, bits: int) -> list[fx.Node]:
        """The nodes of a bit set, in order."""
        found = []
        while bits:
            low = bits & -bits
            found.append(self.nodes[low.bit_length() - 1])
            bits ^= low
        return found

    def bits(self, nodes: Iterable[fx.Node]) -> int:
        total = 0
        for node in nodes:
            total |= 1 << self.position[node]
        return total

    def _find_taught(self) -> dict[fx.Node, int]:
        """For each node those of its ancestors that a gradient at it reaches."""
        if not any(map(self.ops.detaches, self.data)):
            return self.above
        return ancestors(
            self.nodes, {n: [] if self.ops.detaches(n) else s for n, s in self.sources.items()}
        )

    def _find_outputs(self) -> list[fx.Node]:
        outputs = [n for n in dict.fromkeys(returned(self.nodes[-1])) if n in self.data]
        if not outputs:
            text = "the network returns no tensor that derives from its input."
            raise for_whole(PlanError, text)
        return outputs

    def _find_main_output(self) -> fx.Node:
        """The returned tensor with the most convolutions above it."""
        # Of equals the first: an auxiliary output never has more convolutions than the main one.
        return max(self.outputs, key=lambda n: (self.above[n] & self._convs).bit_count())

    def linear(self, node: fx.Node) -> bool:
        """Whether a node keeps a chain of convolutions linear; a product does that scales data."""
        scales = self.ops.product(node) and len(self.sources[node]) == 1
        return scales or self.ops.linear(node)

    def channel_axis(self, node: fx.Node) -> int | None:
        """The axis that holds the channels of an image-like tensor, or None if it is none.

        It is the axis that keeps its size while the input's grows. Where nothing grows (behind an
        adaptive pool, or in a network that refuses other sizes) it is carried along from the
        operands; an image is channels-first unless something says otherwise. What a guess alone
        says of a tensor says nothing of its permutation: `view` and `permute` together often make
        images of a batch of frames, or of tokens.
        """
        if node not in self._axes:
            self._axes[node] = self._find_axis(node)
        return self._axes[node]

    def _find_axis(self, node: fx.Node) -> int | None:
        first = self.shapes.of(node)
        if first is None or len(first) != self.rank or first[0] != self.batch:
            return None
        for row in self.shapes.rows(node)[1:]:
            if row is None or len(row) != self.rank:
                continue
            fixed = [i for i in range(1, self.rank) if row[i] == first[i]]
            if len(fixed) == 1:
                return fixed[0]
            if not fixed:
                return None
        conv = self.ops.conv(node)
        if conv is not None:
            return self.rank - 1 if conv.window is None else 1
        sources = self.sources.get(node, ())
        if sources and all(self._axes.get(s) is None or s in self._guessed for s in sources):
            self._guessed.add(node)
        for source in sources:
            axis = self._axes.get(source)
            moved = self.ops.permutation(node)
            if axis is not None and moved is not None:
                return 1 if node in self._guessed else moved.index(axis)
            before = self.shapes.of(source)
            if axis not in (None, 1) and before is not None and before[axis] == first[axis]:
                return axis
            if axis is None and self._linear_rows(source) and before and before[-1] == first[-1]:
                self._guessed.discard(node)
                return self.rank - 1
        return 1

    def _linear_rows(self, node: fx.Node) -> bool:
        """A linear layer's output, whatever its rows are: windows of an image, or a sequence."""
        drops = chain(node, lambda n: self.sources[n][0] if self.ops.dropout(n) else None)
        conv = self.ops.conv(drops[-1])
        return conv is not None and conv.window is None

    def spatial(self, node: fx.Node, probe: int = 0) -> tuple[int, ...] | None:
        """The spatial size of an image-like tensor at a probe size."""
        return self._spatial(node, self.shapes.of(node, probe))

    def _spatial(self, node: fx.Node, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
        axis = self.channel_axis(node)
        if axis is None or shape is None or len(shape) != self.rank:
            return None
        return tuple(n for i, n in enumerate(shape) if i not in (0, axis))

    def resolution(self, node: fx.Node) -> tuple[tuple[int, ...] | None, ...]:
        """Its spatial size at every probe; None where the network refuses that size before it."""
        if node not in self._sizes:
            probes = range(len(self.shapes.inputs))
            self._sizes[node] = tuple(self.spatial(node, i) for i in probes)
        return self._sizes[node]

    def deep_sizes(self, node: fx.Node) -> tuple[tuple[int, ...] | None, ...]:
        """Its spatial size at two more probes, whose sides are odd; None where that is refused."""
        return tuple(self._spatial(node, run.get(node)) for run in self.shapes.deep())

    def same_size(self, a: fx.Node, b: fx.Node) -> bool:
        """Whether two tensors have one spatial size, at every probe that the network takes so far.

        A size that it refuses between the two is known of the first alone, and tells nothing; then
        two more are asked.
        """
        (first, *more) = zip(self.resolution(a), self.resolution(b), strict=True)
        if first[0] != first[1] or any(x != y for x, y in more if x and y):
            return False
        if all(x and y for x, y in more):
            return True
        deep = zip(self.deep_sizes(a), self.deep_sizes(b), strict=True)
        return all(x == y for x, y in deep if x and y)

    def channels(self, node: fx.Node) -> int | None:
        axis = self.channel_axis(node)
        shape = self.shapes.of(node)
        return None if axis is None or shape is None else shape[axis]

    def image_conv(self, node: fx.Node) -> bool:
        """Whether a node convolves images, not transposed, on the way to an output."""
        conv = self.ops.conv(node) if node in self.data else None
        if conv is None or conv.window is None or conv.transposed:
            return False
        return self.is_image(node) and self.alive(node)

    def is_image(self, node: fx.Node) -> bool:
        """Image-like with more than one pixel at some probe size: a small input may end in one.

        Complex numbers are no image: h is real.
        """
        dtype = self.shapes.dtypes.get(node)
        if dtype is not None and dtype.is_complex:
            return False
        return any(size is not None and max(size) > 1 for size in self.resolution(node))


def returned(output: fx.Node) -> list[fx.Node]:
    """Nodes in the network's return value; constructors of named tuples and dicts unwrapped."""
    found: list[fx.Node] = []

    def visit(value: Any) -> None:
        if isinstance(value, fx.Node):
            made = value.op == "call_function" and (
                isinstance(value.target, type) or hasattr(value.target, "makes_output")
            )
            if made:
                visit(value.args)
                visit(value.kwargs)
            else:
                found.append(value)
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)
        elif isinstance(value, (tuple, list)):
            for item in value:
                visit(item)

    visit(output.args)
    return found
