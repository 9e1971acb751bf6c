"""The hidden state's way to a layer of the main path: its own norm, activation, pool, convolution.

Conv(Concat[x, h]) = Conv_x(x) + Conv_h(h): the layer keeps its weight, and a path made here ends in
Conv_h, whose result is added to the layer's output. What stands between the point where h meets x
and the layer, h passes too, in layers of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from rlawrap.cells import make_norm
from rlawrap.discover.flow import Flow
from rlawrap.discover.geometry import Step, padding_of, pools_for, route
from rlawrap.discover.ops import Conv, Window, name_of
from rlawrap.splice.layers import (
    ChannelsFirst,
    ChannelsLast,
    Function,
    Method,
    Reduce,
    SameConv,
    conv_layer,
    fresh_activation,
    named_activation,
    step_layers,
)

Build = Callable[[], nn.Module]


@dataclass
class Path:
    """A way for h: named layer factories, and the node whose output takes the result."""

    target: fx.Node
    layers: list[tuple[str, Build]] = field(default_factory=list)
    #: Why h cannot go this way; the other fields mean nothing then.
    problem: str = ""

    def build(self) -> nn.Sequential:
        """The layers, named norm, act, pool, … in the order h passes them."""
        named: OrderedDict[str, nn.Module] = OrderedDict()
        for name, make in self.layers:
            unique, n = name, 1
            while unique in named:
                n += 1
                unique = f"{name}{n}"
            named[unique] = make()
        return nn.Sequential(named)


def meeting_point(
    flow: Flow, layer: fx.Node, stop: fx.Node | None
) -> tuple[fx.Node, list[fx.Node]]:
    """Walk back from a layer to `stop` or to where paths join: that node, and what lies between."""
    between: list[fx.Node] = []
    node = flow.sources[layer][0]
    while node is not stop:
        sources = flow.sources[node]
        conv = flow.ops.conv(node)
        if len(sources) != 1 or node.op == "placeholder" or conv is not None:
            break
        if flow.channel_axis(node) is None or flow.channel_axis(sources[0]) is None:
            break
        between.append(node)
        node = sources[0]
    return node, between[::-1]


class PathMaker:
    """Makes paths for a hidden state of k channels through one network."""

    def __init__(self, flow: Flow, k: int, norm: str) -> None:
        self.flow, self.k, self.norm_kind = flow, k, norm
        self.dims = flow.rank - 2

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
        layers = self._between(between)
        if layers is None:
            return Path(layer, problem="h cannot follow what lies before it")
        steps = route(self.flow, start, meet)
        if steps is None:
            return Path(layer, problem="its input has a size that h cannot be brought to")
        layers = [*self._steps(steps), *layers]
        if conv.depthwise:
            return self._beside_depthwise(layer, conv, layers, output)
        return self._dense(layer, conv, layers)

    def _changes_values(self, node: fx.Node) -> bool:
        return bool(self.flow.ops.norm(node) or self.flow.ops.activation(node))

    def _norm(self) -> tuple[str, Build]:
        return "norm", lambda: make_norm(self.norm_kind, self.k, self.dims)

    @staticmethod
    def _steps(steps: list[Step]) -> list[tuple[str, Build]]:
        return [("pool", lambda s=step: step_layers([s])[0]) for step in steps]  # type: ignore[misc]

    def _between(self, nodes: list[fx.Node]) -> list[tuple[str, Build]] | None:
        """Layers for h that do what `nodes` do to x; None if one of them cannot be followed."""
        layers: list[tuple[str, Build]] = []
        for node in nodes:
            part = self._one(node)
            if part is None:
                return None
            layers += part
        return layers

    def _one(self, node: fx.Node) -> list[tuple[str, Build]] | None:
        ops = self.flow.ops
        module = self.flow.trace.leaf(node)
        if ops.norm(node):
            layers = [self._norm()]
            inner = getattr(module, "act", None)
            if isinstance(inner, nn.Module) and not isinstance(inner, nn.Identity):
                layers.append(("act", lambda m=inner: fresh_activation(m)))  # type: ignore[misc]
            return layers
        if ops.activation(node):
            if module is not None:
                return [("act", lambda: fresh_activation(module))]
            return [("act", lambda: named_activation(name_of(node)))]
        window = ops.window(node)
        if window is not None and ops.conv(node) is None:
            same = self.flow.same_size(node, self.flow.sources[node][0])
            if ops.max_pool(node) and same:
                return [("pool", lambda: max_pool_layer(window))]
            return self._steps(pools_for(window)) if not same else []
        pad = padding_of(self.flow, node)
        if pad is not None:
            return self._steps([pad])
        before, after = self.flow.sources[node][0], node
        if self.flow.same_size(before, after):
            return []  # dropout, scaling, a change of layout: nothing that h needs
        steps = route(self.flow, before, after)
        return None if steps is None else self._steps(steps)

    def _window(self, layer: fx.Node, conv: Conv) -> Callable[[int, int, int], nn.Module] | None:
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
        make = self._window(layer, conv)
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
        make = self._window(layer, conv)
        if make is None:
            return Path(layer, problem="its window does not explain the size of its output")
        dense = self._next_dense(layer, output)
        if dense is None:
            return Path(layer, problem="no dense convolution follows the depthwise one")
        between = self._chain(layer, dense)
        rest = None if between is None else self._between(between)
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
        seen: set[fx.Node] = set()
        queue = [layer]
        hits = []
        while queue:
            node = queue.pop(0)
            for user in node.users if node is not output else ():
                if user in seen or user not in flow.data:
                    continue
                seen.add(user)
                conv = flow.ops.conv(user)
                if conv is None:
                    queue.append(user)
                elif flow.same_size(flow.sources[user][0], layer):
                    hits.append(user)
        dense = [
            n for n in hits if (c := flow.ops.conv(n)) and not c.depthwise and not c.transposed
        ]
        return min(dense, key=flow.position.__getitem__) if dense else None

    def _chain(self, layer: fx.Node, dense: fx.Node) -> list[fx.Node] | None:
        """Nodes between the two; of a gate (x times something of x) h passes the ungated side."""
        flow = self.flow
        chain: list[fx.Node] = []
        node = flow.sources[dense][0]
        while node is not layer:
            sources = [s for s in flow.sources[node] if flow.derives(s, layer)]
            if not sources or flow.ops.conv(node) is not None:
                return None
            same = [s for s in sources if flow.same_size(s, node)]
            if len(sources) > 1:
                if not same:
                    return None
                # Past a gate, a join or a concatenation, stay on the shortest side.
                node = min(same, key=flow.position.__getitem__)
                continue
            chain.append(node)
            node = sources[0]
        return chain[::-1]

    def head(self, layer: fx.Node, last: fx.Node) -> Path:
        """The way from the last h to the classifier: its pools and flattens, norms of h's own."""
        flow = self.flow
        conv = flow.ops.conv(layer)
        if conv is None:
            return Path(layer, problem="it is no convolution or linear layer")
        layers: list[tuple[str, Build]] = []
        node, chain = flow.sources[layer][0], []
        while node is not last and len(flow.sources[node]) == 1 and flow.ops.conv(node) is None:
            chain.append(node)
            node = flow.sources[node][0]
        if node is not last:  # paths join there (a dense net's last concatenation, a gate)
            steps = route(flow, last, node)
            if steps is None:
                return Path(layer, problem=f"h cannot be brought to the size of {node.name}")
            layers += self._steps(steps)
        if flow.channel_axis(node) not in (1, None):
            layers.append(("layout", lambda: ChannelsLast(self.dims)))
        for node in reversed(chain):
            part = self._head_step(node)
            if part is None:
                return Path(layer, problem=f"h cannot follow {node.name} before it")
            layers += part
        if conv.window is not None:
            make = self._window(layer, conv)
            if make is None:
                return Path(layer, problem="its window does not explain the size of its output")
            return self._checked(
                layer, last, [*layers, ("conv", lambda: make(self.k, conv.out_channels, 1))]
            )
        width = self._width(layers, last)
        if width is None:
            return Path(layer, problem="h has no fixed width before it")
        layers.append(("linear", lambda: nn.Linear(width, conv.out_channels, bias=False)))
        return self._checked(layer, last, layers)

    def _head_step(self, node: fx.Node) -> list[tuple[str, Build]] | None:
        flow, ops = self.flow, self.flow.ops
        module = flow.trace.leaf(node)
        if ops.dropout(node) or ops.identity(node):
            return []
        if ops.norm(node):
            if flow.channel_axis(node) == 1 or flow.channel_axis(node) is None:
                rank = len(flow.shapes.of(node) or ())
                kind = self.norm_kind
                if rank == 2:
                    kind = "batch" if kind == "batch" else "none"
                    return [("norm", lambda: make_norm(kind, self.k, 1))] if kind == "batch" else []
                return [self._norm()]
            return [
                ("layout", lambda: ChannelsFirst(self.dims)),
                self._norm(),
                ("layout", lambda: ChannelsLast(self.dims)),
            ]
        if ops.activation(node):
            return self._one(node)
        name = name_of(node)
        if module is not None:
            if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
                return None
            return [(_label(type(module).__name__), lambda: fresh_activation(module))]
        before = flow.shapes.of(flow.sources[node][0]) or ()
        after = flow.shapes.of(node) or ()
        args = node.args[1:]
        if name in ("flatten", "view", "reshape") and len(after) == 2 and len(before) > 2:
            return [("flatten", nn.Flatten)]
        if any(isinstance(a, fx.Node) for a in node.all_input_nodes if a not in flow.data):
            return None
        if name in ("mean", "amax"):
            dims = args[0] if args else node.kwargs.get("dim")
            keep = args[1] if len(args) > 1 else node.kwargs.get("keepdim", False)
            return [("pool", lambda: Reduce(name, dims, bool(keep)))]
        if name in (
            "squeeze",
            "permute",
            "transpose",
            "flatten",
            "unsqueeze",
            "contiguous",
            "getitem",
        ):
            return [("shape", lambda: Method(name, tuple(args), dict(node.kwargs)))]
        if node.op == "call_function" and "pool" in name:
            public = name.removeprefix("_")
            return [("pool", lambda: Function(public, tuple(args), dict(node.kwargs)))]
        scalar = flow.shapes.of(node) == flow.shapes.of(flow.sources[node][0])
        return [] if scalar else None

    def _run(
        self, layers: list[tuple[str, Build]], last: fx.Node, probe: int
    ) -> torch.Tensor | None:
        """h's shape after the layers, on fake tensors."""
        size = self.flow.spatial(last, probe)
        if size is None:
            return None
        try:
            with self.flow.trace.fake_mode, torch.no_grad():
                x = torch.empty((2, self.k, *size))
                for _, make in layers:
                    x = make().eval()(x)
            return x
        except Exception:
            return None

    def _width(self, layers: list[tuple[str, Build]], last: fx.Node) -> int | None:
        out = self._run(layers, last, 0)
        return int(out.shape[-1]) if out is not None else None

    def _checked(self, layer: fx.Node, last: fx.Node, layers: list[tuple[str, Build]]) -> Path:
        """The path, if h ends with the very shape of the layer's output at every probe."""
        for probe in range(len(self.flow.shapes.inputs)):
            want = self.flow.shapes.of(layer, probe)
            if want is None:
                continue
            got = self._run(layers, last, probe)
            if got is None or tuple(got.shape[1:]) != tuple(want[1:]):
                return Path(layer, problem=f"h does not reach its shape {tuple(want[1:])}")
        return Path(layer, layers)


def max_pool_layer(window: Window) -> nn.Module:
    """A maximum pool that keeps the size, as in an Inception branch."""
    cls = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[len(window.kernel) - 1]
    return cls(
        window.kernel,  # type: ignore[arg-type]
        window.stride,  # type: ignore[arg-type]
        window.padding,  # type: ignore[arg-type]
        window.dilation,  # type: ignore[arg-type]
        ceil_mode=window.ceil_mode,
    )


def _label(class_name: str) -> str:
    lowered = class_name.lower()
    return "pool" if "pool" in lowered else "flatten" if "flatten" in lowered else "shape"
