"""Which nodes are learned convolutions: layers, and functions of a filter that is learned.

A filter need not be a parameter. It may be computed of some in every call (standardised weights,
mixtures of filters, branches that are folded into one), made by layers from the image itself, or
be kept in a buffer or an attribute from the last time that it was computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from rlawrap._torch import ConvNd, ConvTransposeNd
from rlawrap.capture.shapes import Shapes
from rlawrap.capture.trace import Trace, name_of
from rlawrap.flow.windows import Conv, Window, per_axis
from rlawrap.walks import search

_FORWARD = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """An argument of a call, by its position or its name."""
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def _known(value: Any) -> bool:
    """Whether an argument holds no node, whose value tracing does not know."""
    if isinstance(value, (tuple, list)):
        return all(map(_known, value))
    return not isinstance(value, fx.Node)


def setting(shapes: Shapes, node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """An argument that is a number or a tuple; one that follows the image size is unknown.

    For an unknown one `default` is returned: the window then does not explain the size of the
    output, and h is brought to it another way.
    """
    value = fx.node.map_arg(argument(node, index, name, default), shapes.number)
    return value if _known(value) else default


def conv_of_layer(module: nn.Module | None) -> Conv | None:
    """The convolution or linear layer that a module is, or None."""
    if isinstance(module, nn.Linear):
        return Conv(module.in_features, module.out_features, 1, None)
    if not isinstance(module, ConvNd):
        return None
    padding = module.padding
    if padding == "same":
        padding = tuple(
            d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)
        )
    elif padding == "valid":
        padding = (0,) * len(module.kernel_size)
    window = Window(module.kernel_size, module.stride, tuple(padding), module.dilation)  # type: ignore[arg-type]
    return Conv(
        module.in_channels,
        module.out_channels,
        module.groups,
        window,
        isinstance(module, ConvTransposeNd),
    )


def conv_of_call(trace: Trace, shapes: Shapes, node: fx.Node) -> Conv | None:
    """The convolution or linear layer that a call of a function is, or None."""
    name = name_of(node) if node.op == "call_function" else ""
    if name not in ("linear", *_FORWARD, *_TRANSPOSED):
        return None
    weight = argument(node, 1, "weight")
    shape = shapes.of(weight) if isinstance(weight, fx.Node) else None
    if shape is None or not _learned(trace, shapes, weight):
        return None
    if name == "linear":
        return Conv(shape[1], shape[0], 1, None)
    groups = int(setting(shapes, node, 6, "groups", 1))
    window = window_of_call(shapes, node)
    if window is None:
        window = _transposed_window(shapes, node, shape)
        return Conv(shape[0], shape[1] * groups, groups, window, True)
    return Conv(shape[1] * groups, shape[0], groups, window)


def window_of_call(shapes: Shapes, node: fx.Node) -> Window | None:
    """The window of a call of `conv1d`, `conv2d` or `conv3d`, whoever made its filter."""
    if node.op != "call_function" or name_of(node) not in _FORWARD:
        return None
    source = argument(node, 1, "weight")
    weight = shapes.of(source) if isinstance(source, fx.Node) else None
    if weight is None:
        return None
    dims = len(weight) - 2
    padding = setting(shapes, node, 4, "padding", 0)
    dilation = per_axis(setting(shapes, node, 5, "dilation", 1), dims)
    if isinstance(padding, str):
        same = padding == "same"
        padding = tuple(
            d * (k - 1) // 2 if same else 0 for d, k in zip(dilation, weight[2:], strict=True)
        )
    stride = per_axis(setting(shapes, node, 3, "stride", 1), dims)
    return Window(weight[2:], stride, per_axis(padding, dims), dilation)


def _transposed_window(shapes: Shapes, node: fx.Node, weight: tuple[int, ...]) -> Window:
    dims = len(weight) - 2
    stride, padding, dilation = (
        per_axis(setting(shapes, node, index, name, default), dims)
        for index, name, default in ((3, "stride", 1), (4, "padding", 0), (7, "dilation", 1))
    )
    return Window(weight[2:], stride, padding, dilation)


def _read_for_values(node: fx.Node) -> list[fx.Node]:
    """The nodes whose values a node reads; their device, type or shape says nothing of those."""
    asks = node.target is getattr and node.args[1] in ("device", "dtype", "shape")
    return [] if asks else node.all_input_nodes


def _learned(trace: Trace, shapes: Shapes, filter_: fx.Node) -> bool:
    """Whether a filter comes from parameters, and not, as a blur's, from fixed numbers.

    A feature of an image that another is correlated with is no filter: it grows with the image.
    """
    if len({row for row in shapes.rows(filter_) if row is not None}) > 1:
        return False
    made = list(search([filter_], _read_for_values))
    return any(_holds_parameter(trace, n) or _cached(trace, n, shapes.of(filter_)) for n in made)


def _holds_parameter(trace: Trace, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = trace.leaf(node)
        return module is not None and any(True for _ in module.parameters())
    value = _read(trace, node)
    return isinstance(value, nn.Parameter) or getattr(value, "_is_param", False)


def _cached(trace: Trace, node: fx.Node, shape: tuple[int, ...] | None) -> bool:
    """Whether a buffer or an attribute keeps a filter that was computed.

    What is fixed (a blur, a gradient) has a filter for each channel alone, or for few; one that
    mixes channels was learned, and so was one whose module has a parameter of its shape.
    """
    value = _read(trace, node)
    if not isinstance(value, Tensor) or not value.is_floating_point() or not shape:
        return False
    mixes = len(shape) < 3 or (shape[1] > _FEW and shape[0] > _FEW)
    return mixes or any(p.shape == value.shape for p in _module_of(trace, node).parameters())


#: Images of so many channels are filtered by fixed numbers as well: colours and their kin.
_FEW: int = 4


def _read(trace: Trace, node: fx.Node) -> Any:
    """The tensor of the network that a node reads, or None."""
    if node.op != "get_attr":
        return None
    value: Any = trace.root
    for atom in str(node.target).split("."):
        value = getattr(value, atom, None)
    return value


def _module_of(trace: Trace, node: fx.Node) -> nn.Module:
    return trace.module(str(node.target).rpartition(".")[0])


def _reshapes(node: fx.Node) -> bool:
    calls = node.op in ("call_function", "call_method")
    return calls and name_of(node) in ("view", "reshape", "flatten", "unflatten")


def folded_image(shapes: Shapes, node: fx.Node) -> fx.Node | None:
    """The images of a convolution that has their batch in its channels, or None.

    A filter for each image (CondConv, dynamic convolution) is a grouped convolution of one image.
    """
    source = argument(node, 0, "input") if window_of_call(shapes, node) is not None else None
    if not isinstance(source, fx.Node) or not _reshapes(source) or not source.args:
        return None
    image: Any = source.args[0]
    before, shape = shapes.of(image), shapes.of(source)
    if before is None or shape is None or len(before) != len(shape):
        return None
    batch, groups = before[0], int(setting(shapes, node, 6, "groups", 1))
    merged = (1, batch * before[1], *before[2:])
    # Of a single image the shapes tell nothing, but the groups are then counted by its batch.
    counted = batch > 1 or isinstance(argument(node, 6, "groups"), fx.Node)
    return image if counted and shape == merged and groups % batch == 0 else None


class Convolutions:
    """The learned convolutions of one trace; `leaf` says which module a node calls."""

    def __init__(
        self, trace: Trace, shapes: Shapes, leaf: Callable[[fx.Node], nn.Module | None]
    ) -> None:
        self.trace, self.shapes, self.leaf = trace, shapes, leaf
        self._found: dict[fx.Node, Conv | None] = {}

    def of(self, node: fx.Node) -> Conv | None:
        """The learned convolution or linear layer that a node is, or None."""
        if node not in self._found:
            self._found[node] = self._find(node)
        return self._found[node]

    def _find(self, node: fx.Node) -> Conv | None:
        layer = conv_of_layer(self.leaf(node))
        if layer is not None or folded_image(self.shapes, node) is not None:
            return layer
        image, shape = self.image(node), self.shapes.of(node)
        before = None if image is None else self.shapes.of(image)
        if before is None or shape is None:
            return conv_of_call(self.trace, self.shapes, node)
        folded: Any = node.args[0]
        conv = conv_of_call(self.trace, self.shapes, folded)
        return conv and Conv(before[1], shape[1], conv.groups // shape[0], conv.window)

    def image(self, node: fx.Node) -> fx.Node | None:
        """The images that were convolved where a node takes a batch out of the channels again."""
        inner = node.args[0] if node.args else None
        image = folded_image(self.shapes, inner) if isinstance(inner, fx.Node) else None
        if image is None or not isinstance(inner, fx.Node) or not _reshapes(node):
            return None
        shape, made, before = (self.shapes.of(n) for n in (node, inner, image))
        if shape is None or made is None or before is None:
            return None
        same = shape[0] == before[0] and shape[2:] == made[2:] and len(shape) == len(made)
        return image if same else None
