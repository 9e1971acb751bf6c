"""The graph that runs: it computes what the written one does and spares what only costs time.

h^0 is zero, and so is what layers without bias make of it; norms and activations make one number a
channel of that, the same at every pixel. So its ways are run on one pixel and spread by the sum
that takes them. What a convolution returns is read by the sum with h's share alone, which is
written over it, and so is a norm's output by its tanh. Convolutions of one value, h's and the
base's, have one backward pass. Weights get the gradients that they had, zeros among them, and norms
the same running statistics.

Hooks on the layers concerned would see another call: `Spared.layers` names them, and with hooks,
or with another layer in their place, the network runs the graph as it was written. So it does for
those who trace it again.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from rlawrap._torch import is_recorded, is_transformed
from rlawrap.cells import fast_tanh
from rlawrap.cells.tanh import fast_tanh_
from rlawrap.copying import copy_graph
from rlawrap.design.layers import CONVS, SameConv
from rlawrap.design.names import is_added
from rlawrap.splice.joint import Geometry, joint_convs
from rlawrap.splice.pixels import NORMS, SIZES, is_plain_conv, stays_zero
from rlawrap.splice.pointwise import is_point_conv, point_conv


@dataclass(frozen=True)
class Spared:
    """A graph to run in place of another, and the layers that it calls otherwise.

    layers: by their paths, their classes and how many modules they hold.
    """

    graph: fx.Graph
    layers: Mapping[str, tuple[type[nn.Module], int]]

    @classmethod
    def of(
        cls, graph: fx.Graph, modules: Mapping[str, nn.Module], initial: Iterable[fx.Node]
    ) -> Spared:
        """A copy of a rewritten network's graph that spares what it can.

        modules: by their paths. initial: h^0 of all pixels, wherever it is made.
        """
        copied, copies = copy_graph(graph)
        work = _Sparing(copied, modules, frozenset(copies[h] for h in initial))
        work.run()
        return cls(copied, work.layers)


@dataclass(frozen=True)
class Pixel:
    """A value that is the same at every pixel and in every image, as two images of one pixel.

    zero: it is 0. free: no weight has a share in it.
    """

    node: fx.Node
    zero: bool
    free: bool


def zeros_of(x: Tensor, k: int) -> Tensor:
    """Two images of one pixel with k channels: a norm asks for more than one value a channel."""
    return x.new_zeros((2, k, *[1] * (x.dim() - 2)))


def plus_zeros(u: Tensor, zeros: Tensor) -> Tensor:
    """u + 0, of which only the type of the sum is left."""
    return u if u.dtype == zeros.dtype else u + zeros[:1]


def add_share_(x: Tensor, share: Tensor) -> Tensor:
    """x + share, written over x, which nobody else reads."""
    # Compilers and exporters overwrite as they see fit, vmap and its like cannot do so everywhere.
    if is_recorded(x) or is_transformed(x, share) or x.dtype != share.dtype:
        return x + share
    return x.add_(share)


def spread_share_(x: Tensor, pixel: Tensor) -> Tensor:
    """x + share, the same at every pixel, written over x, which nobody else reads."""
    return add_share_(x, pixel[:1])


@dataclass
class _Sparing:
    graph: fx.Graph
    modules: Mapping[str, nn.Module]
    initial: frozenset[fx.Node]
    layers: dict[str, tuple[type[nn.Module], int]] = field(default_factory=dict)
    pixels: dict[fx.Node, Pixel] = field(default_factory=dict)

    def run(self) -> None:
        for node in list(self.graph.nodes):
            with self.graph.inserting_before(node.next):
                pixel = self._pixel(node)
            if pixel is not None:
                self.pixels[node] = pixel
        for node in list(self.graph.nodes):
            if _is_sum(node) and node not in self.pixels:
                self._sum(node)
            elif node.target is fast_tanh and self._is_normed(node.all_input_nodes[0]):
                self._concerns(str(node.all_input_nodes[0].target))
                node.target = fast_tanh_
        for node in list(self.graph.nodes):
            self._join_convs(node)
        self._drop_unread()
        for node in list(self.graph.nodes):
            self._point_convs(node)
        self.graph.lint()

    def _concerns(self, *paths: str) -> None:
        """These layers are called otherwise than they are written."""
        for path in paths:
            layer = self.modules[path]
            self.layers[path] = (type(layer), len(layer._modules))

    def _pixel(self, node: fx.Node) -> Pixel | None:
        """What a node makes, at one pixel; None where that is not known."""
        if node in self.initial:
            *_, x = _made_of(node)
            k = node.args[1][-1] + 1  # type: ignore[index,operator]
            made = self.graph.call_function(zeros_of, (x, k))
            return Pixel(made, zero=True, free=True)
        first = node.args[0] if node.args else None
        before = self.pixels.get(first) if isinstance(first, fx.Node) else None
        if before is None:
            return None
        if node.op == "call_method" and node.target in ("to", "detach"):
            made = self.graph.call_method(node.target, (before.node, *node.args[1:]), node.kwargs)
            return Pixel(made, before.zero, before.free)
        if node.op != "call_module":
            return None
        layers = self._layers(str(node.target))
        keeps_size = all(type(layer) in SIZES for _, layer in layers)
        # A layer with weights must run once: its call is replaced, or left as it is.
        alone = len(node.users) == 1 and all(_is_sum(user) for user in node.users)
        if not keeps_size and (not alone or len(node.args) > 1):
            return None
        pixel = self._through(layers, before)
        if pixel is not None:
            self._opens(str(node.target))
        return pixel

    def _layers(self, path: str) -> list[tuple[str, nn.Module]]:
        """A layer, or those that a sequence of them has inside."""
        layer = self.modules[path]
        if type(layer) is not nn.Sequential:
            return [(path, layer)]
        return [pair for place in _inside(path, layer) for pair in self._layers(place)]

    def _opens(self, path: str) -> None:
        """The sequences at a path and in it are not called themselves."""
        layer = self.modules[path]
        if type(layer) is nn.Sequential:
            self._concerns(path)
            for place in _inside(path, layer):
                self._opens(place)

    def _through(self, layers: list[tuple[str, nn.Module]], pixel: Pixel) -> Pixel | None:
        """A pixel behind some layers; None, and nothing written, where one of them is not known."""
        zeros = [pixel.zero]
        for _, layer in layers:
            after = stays_zero(layer, zeros[-1])
            if after is None:
                return None
            zeros.append(after)
        value = pixel.node
        for path, layer in layers:
            self._concerns(path, *([f"{path}.conv"] if type(layer) is SameConv else []))
            if type(layer) not in SIZES:
                value = self.graph.call_module(path, (value,))
        return Pixel(value, zeros[-1], pixel.free and value is pixel.node)

    def _sum(self, node: fx.Node) -> None:
        """Write h's share over what takes it; leave out zeros that no weight has a share in."""
        x, share = node.args
        if not (isinstance(x, fx.Node) and isinstance(share, fx.Node)):
            return
        if x in self.pixels:
            x, share = share, x
        pixel = self.pixels.get(share)
        if pixel is not None and pixel.free:
            node.target, node.args = plus_zeros, (x, pixel.node)
            return
        if not self._is_own(x) or (pixel is None and not self._is_ours(share)):
            if pixel is not None:
                with self.graph.inserting_before(node):
                    one = self.graph.call_function(operator.getitem, (pixel.node, slice(None, 1)))
                node.args = (x, one)
            return
        self._concerns(str(x.target))
        if pixel is None:
            node.target, node.args = add_share_, (x, share)
        else:
            node.target, node.args = spread_share_, (x, pixel.node)

    def _is_own(self, x: fx.Node) -> bool:
        """Whether a value is a convolution's output that one sum alone reads."""
        conv = x.op == "call_module" and type(self.modules.get(str(x.target))) in CONVS
        return conv and len(x.users) == 1

    def _is_normed(self, z: fx.Node) -> bool:
        """Whether a value is the output of one of h's norms that one other alone reads."""
        path = str(z.target)
        norm = z.op == "call_module" and is_added(path) and type(self.modules[path]) in NORMS
        return norm and len(z.users) == 1

    def _is_ours(self, share: fx.Node) -> bool:
        """Whether a layer of h's makes a value."""
        return share.op == "call_module" and is_added(str(share.target))

    def _join_convs(self, x: fx.Node) -> None:
        """Convolutions of x, one of them h's, in one call.

        What reads x after something was written over it reads another node, of what was written.
        """
        alike: dict[Any, list[fx.Node]] = {}
        for user in x.users:
            layer: Any = self.modules.get(str(user.target)) if user.op == "call_module" else None
            if is_plain_conv(layer) and layer.groups == 1 and layer.bias is None:
                geometry = Geometry(layer.stride, layer.padding, layer.dilation)
                alike.setdefault((layer.kernel_size, geometry), []).append(user)
        for (_, geometry), users in alike.items():
            ours = [is_added(str(user.target)) for user in users]
            several = len(users) > 1 and any(ours) and not all(ours)
            # Their gradients are put side by side, which costs more than adding up narrow ones.
            layers: Any = [self.modules[str(user.target)] for user in users]
            pays = sum(layer.out_channels for layer in layers) < layers[0].in_channels
            if several and pays:
                self._join(x, sorted(users), geometry)

    def _join(self, x: fx.Node, users: list[fx.Node], geometry: Geometry) -> None:
        paths = [str(user.target) for user in users]
        self._concerns(*paths)
        with self.graph.inserting_before(users[0]):
            weights = [self.graph.get_attr(f"{path}.weight") for path in paths]
            ours = tuple(is_added(path) for path in paths)
            made = self.graph.call_function(joint_convs, (x, weights, geometry, ours))
            for i, user in enumerate(users):
                user.replace_all_uses_with(self.graph.call_function(operator.getitem, (made, i)))
        for user in users:
            self.graph.erase_node(user)

    def _point_convs(self, node: fx.Node) -> None:
        """h's 1x1 convolutions, alone or among the layers of a way of h, by `point_conv`."""
        if node.op != "call_module" or not is_added(str(node.target)) or len(node.args) != 1:
            return
        layers = self._layers(str(node.target))
        if not any(is_point_conv(layer) for _, layer in layers):
            return
        value: Any = node.args[0]
        with self.graph.inserting_before(node):
            for path, layer in layers:
                if is_point_conv(layer):
                    self._concerns(path)
                    own = [self.graph.get_attr(f"{path}.{name}") for name in ("weight", "bias")]
                    value = self.graph.call_function(point_conv, (value, *own))
                else:
                    value = self.graph.call_module(path, (value,))
        self._opens(str(node.target))
        node.replace_all_uses_with(value)
        self.graph.erase_node(node)

    def _drop_unread(self) -> None:
        """Take out what now is done at one pixel, and pixels that nobody asks for."""
        ours = set(self.pixels) | {pixel.node for pixel in self.pixels.values()}
        for h in self.initial:
            ours |= {*_made_of(h)[:-1]}
        for node in reversed(list(self.graph.nodes)):
            if node in ours and not node.users:
                self.graph.erase_node(node)


def _made_of(h: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node]:
    """What h^0 is made of: zeros of one channel, that channel of x, and x."""
    (zeros,) = h.all_input_nodes
    (one,) = zeros.all_input_nodes
    (x,) = one.all_input_nodes
    return zeros, one, x


def _inside(path: str, layer: nn.Module) -> list[str]:
    return [f"{path}.{name}" for name in layer._modules]


def _is_sum(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target is operator.add and len(node.args) == 2
