"""The hidden state's way to a layer of the main path: its own norm, activation, pool, convolution.

Conv(Concat[x, h]) = Conv_x(x) + Conv_h(h): the layer keeps its weight, and a path made here ends in
Conv_h, whose result is added to the layer's output. What stands between the point where h meets x
and the layer, h passes too, in layers of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import fx, nn

from rlawrap.design.following import Build, Follower, Reading
from rlawrap.design.layers import ChannelsLast, Row, SameConv, conv_layer
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.windows import Conv, Window
from rlawrap.walks import chain, first_hits


@dataclass
class Path:
    """A way for h: named layer factories, and the node whose output takes the result."""

    target: fx.Node
    layers: list[tuple[str, Build]] = field(default_factory=list)
    #: Why h cannot go this way; the other fields mean nothing then.
    problem: str = ""

    @property
    def readings(self) -> list[Reading]:
        """The makers of layers that read more than h, in the order h passes them."""
        return [make for _, make in self.layers if isinstance(make, Reading)]

    def build(self) -> nn.Sequential:
        """The layers, named norm, act, pool, … in the order h passes them."""
        named: OrderedDict[str, nn.Module] = OrderedDict()
        for name, make in self.layers:
            unique, n = name, 1
            while unique in named:
                n += 1
                unique = f"{name}{n}"
            named[unique] = make()
        return Row(named) if self.readings else nn.Sequential(named)


def meeting_point(
    flow: Flow, layer: fx.Node, stop: fx.Node | None
) -> tuple[fx.Node, list[fx.Node]]:
    """Walk back from a layer to `stop` or to where paths join: that node, and what lies between."""

    def before(node: fx.Node) -> fx.Node | None:
        sources = flow.sources[node]
        if node is stop or len(sources) != 1 or flow.ops.conv(node) is not None:
            return None
        images = flow.channel_axis(node) is not None and flow.channel_axis(sources[0]) is not None
        return sources[0] if images else None

    *between, met = chain(flow.sources[layer][0], before)
    return met, between[::-1]


class PathMaker(Follower):
    """Makes paths for a hidden state of k channels through one network."""

    def entry(self, layer: fx.Node, start: fx.Node, output: fx.Node, behind: bool) -> Path:
        """The way from the size of a block's input, `start`, into one of its convolutions.

        `behind`: other convolutions lie between the two, so h joins at this one's own input.
        """
        conv = self.flow.ops.conv(layer)
        if conv is None:
            return Path(layer, problem="it is no convolution or linear layer")
        apart = behind or not self.flow.derives(layer, start)
        meet, between = meeting_point(self.flow, layer, None if apart else start)
        if behind:
            # h joins what the depthwise convolution reads, behind the expansion's norm and
            # activation; padding before it is for both.
            acts = [i for i, n in enumerate(between) if self._changes_values(n)]
            between = between[acts[-1] + 1 :] if acts else between
            meet = self.flow.sources[between[0] if between else layer][0]
        layers = self.between(between)
        if layers is None:
            return Path(layer, problem="h cannot follow what lies before it")
        brought = self.bring(start, meet)
        if brought is None:
            return Path(layer, problem="its input has a size that h cannot be brought to")
        layers = [*brought, *layers]
        if conv.depthwise:
            return self._beside_depthwise(layer, conv, layers, output)
        return self._dense(layer, conv, layers)

    def _changes_values(self, node: fx.Node) -> bool:
        return bool(self.flow.ops.norm(node) or self.flow.ops.activation(node))

    def sized_conv(self, layer: fx.Node, conv: Conv) -> Callable[[int, int, int], nn.Module] | None:
        """A maker of convolutions whose output has the size of the layer's at every probe."""
        window = conv.window
        if window is None:
            ones = (1,) * self.dims
            window = Window(ones, ones, (0,) * self.dims, ones)
        sizes = zip(
            self.flow.resolution(self.flow.sources[layer][0]),
            self.flow.resolution(layer),
            strict=True,
        )
        pairs = [(a, b) for a, b in sizes if a is not None and b is not None]
        if all(window.size(a) == b for a, b in pairs):
            return lambda i, o, g: conv_layer(i, o, window, groups=g)
        up = all(
            tuple(-(-n // s) for n, s in zip(a, window.stride, strict=True)) == b for a, b in pairs
        )
        spans = [d * (k - 1) + 1 for d, k in zip(window.dilation, window.kernel, strict=True)]
        if up and all(n >= s for n, s in zip(spans, window.stride, strict=True)):
            return lambda i, o, g: SameConv(i, o, window, g)
        return None

    def _dense(self, layer: fx.Node, conv: Conv, layers: list[tuple[str, Build]]) -> Path:
        make = self.sized_conv(layer, conv)
        if make is None:
            return Path(layer, problem="its window does not explain the size of its output")
        layers = [*layers, ("conv", lambda: make(self.k, conv.out_channels, 1))]
        if self.flow.channel_axis(layer) != 1:
            layers.append(("layout", lambda: ChannelsLast(self.dims)))
        return Path(layer, layers)

    def _beside_depthwise(
        self, layer: fx.Node, conv: Conv, layers: list[tuple[str, Build]], output: fx.Node
    ) -> Path:
        """h's own depthwise convolution, norm and activation, up to the next dense convolution."""
        make = self.sized_conv(layer, conv)
        if make is None:
            return Path(layer, problem="its window does not explain the size of its output")
        dense = self._next_dense(layer, output)
        if dense is None:
            return Path(layer, problem="no dense convolution follows the depthwise one")
        between = self._chain(layer, dense)
        rest = None if between is None else self.between(between)
        if rest is None:
            return Path(layer, problem="h cannot follow what lies behind the depthwise convolution")
        layers = [*layers, ("depthwise", lambda: make(self.k, self.k, self.k)), *rest]
        inner = self.flow.ops.conv(dense)
        assert inner is not None
        if inner.depthwise:
            return Path(layer, problem="no dense convolution follows the depthwise one")
        return self._dense(dense, inner, layers)

    def _next_dense(self, layer: fx.Node, output: fx.Node) -> fx.Node | None:
        """A block's first dense convolution behind a depthwise one that reads its resolution."""
        flow = self.flow

        def onward(node: fx.Node) -> list[fx.Node]:
            return [user for user in node.users if node is not output and user in flow.data]

        found = first_hits(onward(layer), onward, lambda n: flow.ops.conv(n) is not None)
        hits = [n for n in found if flow.same_size(flow.sources[n][0], layer)]
        dense = [
            n for n in hits if (c := flow.ops.conv(n)) and not c.depthwise and not c.transposed
        ]
        return min(dense, key=flow.position.__getitem__, default=None)

    def _chain(self, layer: fx.Node, dense: fx.Node) -> list[fx.Node] | None:
        """Nodes between the two; of a gate (x times something of x) h passes the ungated side."""
        flow = self.flow

        def read(node: fx.Node) -> list[fx.Node]:
            return [s for s in flow.sources[node] if flow.derives(s, layer)]

        def before(node: fx.Node) -> fx.Node | None:
            sources = read(node)
            if node is layer or flow.ops.conv(node) is not None:
                return None
            if len(sources) > 1:  # past a gate, a join or a concatenation, on the shortest side
                sources = [s for s in sources if flow.same_size(s, node)]
            return min(sources, key=flow.position.__getitem__, default=None)

        *between, met = chain(flow.sources[dense][0], before)
        if met is not layer:
            return None
        return [node for node in reversed(between) if len(read(node)) == 1]
