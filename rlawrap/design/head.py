"""The last hidden state's way to the classifier: pools, flattens and norms like those of x."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import fx, nn

from rlawrap._torch import pytree
from rlawrap.capture.trace import name_of
from rlawrap.cells import make_norm
from rlawrap.design.following import Build, Reading
from rlawrap.design.layers import (
    ChannelsFirst,
    ChannelsLast,
    Function,
    Method,
    Reduce,
    Rows,
    fresh_activation,
)
from rlawrap.design.paths import Path, PathMaker
from rlawrap.flow.convolutions import argument
from rlawrap.walks import chain, only

_ARITHMETIC = frozenset("add sub mul div truediv pow iadd isub imul itruediv".split())


def head_path(maker: PathMaker, layer: fx.Node, last: fx.Node) -> Path:
    """The way from the last h to the classifier: its pools and flattens, norms of h's own."""
    flow = maker.flow
    conv = flow.ops.conv(layer)
    if conv is None:
        return Path(layer, problem="it is no convolution or linear layer")
    layers: list[tuple[str, Build]] = []

    def before(n: fx.Node) -> fx.Node | None:
        followed = n is not last and flow.ops.conv(n) is None
        return only(flow.sources[n]) if followed else None

    *between, node = chain(flow.sources[layer][0], before)
    if node is not last:  # paths join there (a dense net's last concatenation, a gate)
        brought = maker.bring(last, node)
        if brought is None:
            return Path(layer, problem=f"h cannot be brought to the size of {node.name}")
        layers += brought
    if flow.channel_axis(node) not in (1, None):
        layers.append(("layout", lambda: ChannelsLast(maker.dims)))
    for node in reversed(between):
        part = _step(maker, node)
        if part is None:
            return Path(layer, problem=f"h cannot follow {node.name} before it")
        layers += part
    if conv.window is not None:
        make = maker.sized_conv(layer, conv)
        if make is None:
            return Path(layer, problem="its window does not explain the size of its output")
        return _checked(
            maker, layer, last, [*layers, ("conv", lambda: make(maker.k, conv.out_channels, 1))]
        )
    width = _width(maker, layers, last)
    if width is None:
        return Path(layer, problem="h has no fixed width before it")
    layers.append(("linear", lambda: nn.Linear(width, conv.out_channels, bias=False)))
    return _checked(maker, layer, last, layers)


def without_idle_slope(path: Path, act: str) -> Path:
    """The path without a PReLU that gets nothing negative, as its slope would learn nothing.

    `act` is the activation that h passes before the path.
    """
    if act not in ("relu", "relu6"):
        return path
    for i, (name, make) in enumerate(path.layers):
        if name == "act" and isinstance(make(), nn.PReLU):
            return replace(path, layers=path.layers[:i] + path.layers[i + 1 :])
        if name in ("act", "norm", "conv", "linear"):
            break
    return path


def _step(maker: PathMaker, node: fx.Node) -> list[tuple[str, Build]] | None:
    """Layers for h that do what a node before the classifier does; None if h cannot follow."""
    flow, ops = maker.flow, maker.flow.ops
    module = flow.trace.leaf(node)
    if ops.dropout(node) or ops.identity(node):
        return []
    if ops.norm(node):
        # Behind the pool the base trains on one image, of which a batch norm has no variance,
        # unless the base has one there itself.
        batch = maker.norm_kind == "batch" and ops.batch_norm(node)
        if len(flow.shapes.of(node) or ()) == 2:
            return [("norm", lambda: make_norm("batch", maker.k, 1))] if batch else []
        if _is_one_pixel(maker, node) and not batch and maker.norm_kind in ("batch", "instance"):
            return []
        if flow.channel_axis(node) == 1 or flow.channel_axis(node) is None:
            return [maker.norm()]
        return [
            ("layout", lambda: ChannelsFirst(maker.dims)),
            maker.norm(),
            ("layout", lambda: ChannelsLast(maker.dims)),
        ]
    if ops.activation(node):
        return maker.follow(node)
    name = name_of(node)
    if module is not None:
        if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
            return None
        return [(_label(type(module).__name__), lambda: fresh_activation(module))]
    before = flow.shapes.of(flow.sources[node][0]) or ()
    after = flow.shapes.of(node) or ()
    args = node.args[1:]
    if name in ("flatten", "view", "reshape") and len(after) == 2 and len(before) > 2:
        rows = tuple(pytree.tree_leaves(args)) == (-1, before[1])
        rows = rows and flow.channel_axis(flow.sources[node][0]) == 1
        if rows or after[0] == before[0]:
            return [("flatten", Rows if rows else nn.Flatten)]
        # Text recognition reads columns of all images as rows; any other order h cannot follow.
        columns = after == (math.prod(before[:-1]), before[-1])
        return [("flatten", lambda: nn.Flatten(0, -2))] if columns else None
    if name in ("view", "reshape") and len(after) == 3 < len(before) and after[:2] == before[:2]:
        return [("flatten", lambda: nn.Flatten(2))]
    if name in ("pad", "interpolate") and flow.channel_axis(node) == 1:
        return maker.follow(node)
    if _picks_channels(node, len(before)):
        return []
    same = flow.shapes.of(node) == flow.shapes.of(flow.sources[node][0])
    if any(isinstance(a, fx.Node) for a in node.all_input_nodes if a not in flow.data):
        # A mean that is taken off, the power of a learned pool (GeM): h has weights of its own.
        return [] if same and name.strip("_") in _ARITHMETIC else _global_pool(maker, node)
    if name in ("mean", "amax", "sum"):
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
    return [] if same else None


def _is_one_pixel(maker: PathMaker, node: fx.Node) -> bool:
    """Whether an image has one pixel, whatever the size of the network's input."""
    sizes = [size for size in maker.flow.resolution(node) if size is not None]
    return bool(sizes) and all(max(size, default=0) == 1 for size in sizes)


def _picks_channels(node: fx.Node, dims: int) -> bool:
    """Whether channels are taken by a tensor of indices, as CondenseNet's classifier does."""
    if name_of(node) == "index_select":
        return argument(node, 1, "dim") in (1, 1 - dims)
    index = node.args[1] if name_of(node) == "getitem" else None
    if not isinstance(index, tuple) or len(index) != 2:
        return False
    return index[0] == slice(None) and isinstance(index[1], fx.Node)


def _global_pool(maker: PathMaker, node: fx.Node) -> list[tuple[str, Build]] | None:
    """A pool whose kernel is computed, from the image's size where one pixel is left of any."""
    flow, name = maker.flow, name_of(node)
    sizes = [size for size in flow.resolution(node) if size is not None]
    if "pool" not in name or flow.channel_axis(node) != 1 or any(max(size) > 1 for size in sizes):
        return None
    how = "amax" if "max" in name else "mean"
    return [("pool", lambda: Reduce(how, tuple(range(2, flow.rank)), True))]


def _run(
    maker: PathMaker, layers: list[tuple[str, Build]], last: fx.Node, probe: int
) -> torch.Tensor | None:
    """h's shape after the layers, on meta tensors."""
    size = maker.flow.spatial(last, probe)
    if size is None:
        return None
    try:
        with torch.device("meta"), torch.no_grad():
            x = torch.empty((2, maker.k, *size))
            for _, make in layers:
                others: list[torch.Tensor] = []
                if isinstance(make, Reading):
                    others.append(torch.empty(maker.flow.shapes.of(make.node, probe) or ()))
                x = make().eval()(x, *others)
        return x
    except Exception:
        return None


def _width(maker: PathMaker, layers: list[tuple[str, Build]], last: fx.Node) -> int | None:
    out = _run(maker, layers, last, 0)
    return int(out.shape[-1]) if out is not None else None


def _checked(
    maker: PathMaker, layer: fx.Node, last: fx.Node, layers: list[tuple[str, Build]]
) -> Path:
    """The path, if h ends with the very shape of the layer's output at every probe."""
    for probe in range(len(maker.flow.shapes.inputs)):
        want = maker.flow.shapes.of(layer, probe)
        if want is None:
            continue
        got = _run(maker, layers, last, probe)
        # h is run on two images: where the body has two as well, the rows must be the same.
        first = 0 if maker.flow.batch == maker.flow.shapes.inputs[probe][0] == 2 else 1
        if got is None or tuple(got.shape[first:]) != tuple(want[first:]):
            return Path(layer, problem=f"h does not reach its shape {tuple(want[1:])}")
    return Path(layer, layers)


def _label(class_name: str) -> str:
    lowered = class_name.lower()
    return "pool" if "pool" in lowered else "flatten" if "flatten" in lowered else "shape"
