"""What a node of the graph does: convolution, norm, activation, pooling, join, layout change."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.dropout import _DropoutNd

from rlawrap.capture.shapes import Shapes
from rlawrap.capture.trace import Trace, name_of
from rlawrap.flow.windows import Conv, Window, per_axis

_ADDS = {operator.add, operator.iadd, torch.add}
_MULS = {operator.mul, operator.imul, torch.mul}
_CATS = {torch.cat, torch.concat, torch.concatenate, torch.stack}
_ACTIVATION_NAMES = frozenset(
    "relu relu_ relu6 gelu silu silu_ swish hardswish hardswish_ hardsigmoid elu elu_ selu selu_ "
    "celu celu_ leaky_relu leaky_relu_ prelu rrelu rrelu_ mish softplus softsign hardtanh "
    "hardtanh_ tanh tanh_ sigmoid sigmoid_ logsigmoid glu threshold threshold_ clamp clamp_ "
    "clamp_min clamp_min_ hardshrink softshrink tanhshrink".split()
)
_NORM_NAMES = frozenset(
    "batch_norm group_norm layer_norm instance_norm local_response_norm rms_norm".split()
)
_POOL_NAMES = frozenset(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d".split()
)
_NORM_MODULES = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.LPPool1d, nn.LPPool2d,
)  # fmt: skip


def _argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def _known(value: Any) -> bool:
    """Whether an argument holds no node, whose value tracing does not know."""
    if isinstance(value, (tuple, list)):
        return all(map(_known, value))
    return not isinstance(value, fx.Node)


class Ops:
    """Answers about the nodes of one trace; everything is read off modules, arguments, shapes."""

    def __init__(self, trace: Trace, shapes: Shapes) -> None:
        self.trace = trace
        self.shapes = shapes
        self._convs: dict[fx.Node, Conv | None] = {}

    def _setting(self, node: fx.Node, index: int, name: str, default: Any = None) -> Any:
        """An argument that is a number or a tuple; one that follows the image size is unknown.

        For an unknown one `default` is returned: the window then does not explain the size of the
        output, and h is brought to it another way.
        """
        value = fx.node.map_arg(
            _argument(node, index, name, default), lambda n: self.shapes.numbers.get(n, n)
        )
        return value if _known(value) else default

    def conv(self, node: fx.Node) -> Conv | None:
        """The learned convolution or linear layer that a node is, or None."""
        if node not in self._convs:
            self._convs[node] = self._find_conv(node)
        return self._convs[node]

    def _find_conv(self, node: fx.Node) -> Conv | None:
        module = self.trace.leaf(node)
        if isinstance(module, _ConvNd):
            padding = module.padding
            if padding == "same":
                padding = tuple(
                    d * (k - 1) // 2
                    for d, k in zip(module.dilation, module.kernel_size, strict=True)
                )
            elif padding == "valid":
                padding = (0,) * len(module.kernel_size)
            window = Window(module.kernel_size, module.stride, tuple(padding), module.dilation)  # type: ignore[arg-type]
            return Conv(
                module.in_channels,
                module.out_channels,
                module.groups,
                window,
                isinstance(module, _ConvTransposeNd),
            )
        if isinstance(module, nn.Linear):
            return Conv(module.in_features, module.out_features, 1, None)
        if node.op != "call_function":
            return None
        name = name_of(node)
        if name not in ("linear", "conv1d", "conv2d", "conv3d"):
            return None
        weight = _argument(node, 1, "weight")
        if not isinstance(weight, fx.Node) or not self._learned(weight):
            return None
        shape = self.shapes.of(weight)
        if shape is None:
            return None
        if name == "linear":
            return Conv(shape[1], shape[0], 1, None)
        groups = int(self._setting(node, 6, "groups", 1))
        return Conv(shape[1] * groups, shape[0], groups, self._function_window(node, shape))

    def _function_window(self, node: fx.Node, weight: tuple[int, ...]) -> Window:
        """The window of a call of `conv1d`, `conv2d` or `conv3d`."""
        dims = len(weight) - 2
        padding = self._setting(node, 4, "padding", 0)
        dilation = per_axis(self._setting(node, 5, "dilation", 1), dims)
        if isinstance(padding, str):
            same = padding == "same"
            padding = tuple(
                d * (k - 1) // 2 if same else 0 for d, k in zip(dilation, weight[2:], strict=True)
            )
        stride = per_axis(self._setting(node, 3, "stride", 1), dims)
        return Window(weight[2:], stride, per_axis(padding, dims), dilation)

    @staticmethod
    def conv_module(module: nn.Module) -> bool:
        """Whether a module is an elementary convolution or linear layer."""
        return isinstance(module, (_ConvNd, nn.Linear))

    def _learned(self, node: fx.Node) -> bool:
        """Whether a weight comes from a parameter (a blur filter is a buffer)."""
        seen, stack = set(), [node]
        while stack:
            n = stack.pop()
            if n in seen:
                continue
            seen.add(n)
            if n.op == "get_attr":
                value: Any = self.trace.root
                for atom in str(n.target).split("."):
                    value = getattr(value, atom, None)
                if isinstance(value, nn.Parameter) or getattr(value, "_is_param", False):
                    return True
            stack += n.all_input_nodes
        return False

    def norm(self, node: fx.Node) -> bool:
        module = self.trace.leaf(node)
        if module is not None:
            return isinstance(module, _NORM_MODULES) or (
                "Norm" in type(module).__name__ and self.conv(node) is None
            )
        return node.op == "call_function" and name_of(node) in _NORM_NAMES

    def activation(self, node: fx.Node) -> bool:
        """An elementwise nonlinearity, or a norm module that carries one."""
        module = self.trace.leaf(node)
        if module is not None:
            if self.norm(node):
                inner = getattr(module, "act", None)
                return isinstance(inner, nn.Module) and not isinstance(inner, nn.Identity)
            return is_activation_module(module)
        return node.op in ("call_function", "call_method") and name_of(node) in _ACTIVATION_NAMES

    def dropout(self, node: fx.Node) -> bool:
        module = self.trace.leaf(node)
        if module is not None:
            return isinstance(module, _DropoutNd) or type(module).__name__.startswith(
                ("Drop", "StochasticDepth")
            )
        return "dropout" in name_of(node) or "stochastic_depth" in name_of(node)

    def identity(self, node: fx.Node) -> bool:
        if isinstance(self.trace.leaf(node), nn.Identity):
            return True
        return node.op == "call_method" and name_of(node) in (
            "contiguous",
            "to",
            "clone",
            "float",
            "type_as",
        )

    def window(self, node: fx.Node) -> Window | None:
        """The sliding window of a convolution or pool, learned or not."""
        conv = self.conv(node)
        if conv is not None:
            return None if conv.transposed else conv.window
        module = self.trace.leaf(node)
        shape = self.shapes.of(node)
        if shape is None:
            return None
        dims = len(shape) - 2
        if isinstance(module, _POOLS):
            stride = module.stride if module.stride is not None else module.kernel_size
            return Window(
                per_axis(module.kernel_size, dims),
                per_axis(stride, dims),
                per_axis(getattr(module, "padding", 0), dims),
                per_axis(getattr(module, "dilation", 1), dims),
                bool(module.ceil_mode),
            )
        name = name_of(node)
        if node.op == "call_function" and name in _POOL_NAMES:
            lp = name.startswith("lp")
            kernel = self._setting(node, 2 if lp else 1, "kernel_size")
            if kernel is None:
                return None
            stride = self._setting(node, 3 if lp else 2, "stride") or kernel
            padding = 0 if lp else self._setting(node, 3, "padding", 0)
            is_max = name.startswith("max")
            dilation = self._setting(node, 4, "dilation", 1) if is_max else 1
            ceil_mode = self._setting(node, 5 if is_max else 4, "ceil_mode", False)
            return Window(
                per_axis(kernel, dims), per_axis(stride, dims), per_axis(padding, dims),
                per_axis(dilation, dims), bool(ceil_mode),
            )  # fmt: skip
        if node.op == "call_function" and name in ("conv1d", "conv2d", "conv3d"):
            weight = _argument(node, 1, "weight")
            shape = self.shapes.of(weight) if isinstance(weight, fx.Node) else None
            return None if shape is None else self._function_window(node, shape)
        return None

    def max_pool(self, node: fx.Node) -> bool:
        module = self.trace.leaf(node)
        return isinstance(module, (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)) or (
            node.op == "call_function" and name_of(node).startswith("max_pool")
        )

    def permutation(self, node: fx.Node) -> list[int] | None:
        """For each axis of a permuted tensor, the axis of its operand; None for other nodes."""
        shape = self.shapes.of(node)
        if shape is None or node.op == "call_module":
            return None
        axes = list(range(len(shape)))
        if name_of(node) == "permute":
            order: Any = node.args[1:] if len(node.args) > 2 else _argument(node, 1, "dims")
            if isinstance(order, (tuple, list)) and all(isinstance(i, int) for i in order):
                return [axes[i] for i in order]
        if name_of(node) in ("transpose", "swapaxes"):
            i, j = _argument(node, 1, "dim0"), _argument(node, 2, "dim1")
            if isinstance(i, int) and isinstance(j, int):
                axes[i], axes[j] = axes[j], axes[i]
                return axes
        return None

    def adds(self, node: fx.Node) -> bool:
        """An addition, of two tensors or of a tensor and a number (`sum` starts from 0)."""
        return (node.op == "call_function" and node.target in _ADDS) or (
            node.op == "call_method" and node.target in ("add", "add_", "__add__", "__iadd__")
        )

    def add_operands(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """The two tensors that a node adds, or None."""
        if not self.adds(node):
            return None
        a = _argument(node, 0, "input")
        b = _argument(node, 1, "other")
        if isinstance(a, fx.Node) and isinstance(b, fx.Node) and a is not b:
            return a, b
        return None

    def gate(self, node: fx.Node) -> bool:
        """A product of two tensors that both come from the data."""
        is_mul = (node.op == "call_function" and node.target in _MULS) or (
            node.op == "call_method" and node.target in ("mul", "mul_", "__mul__")
        )
        return is_mul and len([a for a in node.args if isinstance(a, fx.Node)]) == 2

    def cat_operands(self, node: fx.Node) -> list[fx.Node] | None:
        """The tensors that a node concatenates or stacks, or None."""
        if node.op != "call_function" or node.target not in _CATS:
            return None
        items = _argument(node, 0, "tensors")
        if not isinstance(items, (tuple, list)):
            return None
        return [item for item in items if isinstance(item, fx.Node)]

    def splits(self, node: fx.Node) -> bool:
        """Takes only part of the channels: chunk, split, narrow or a slice."""
        return name_of(node) in (
            "chunk",
            "split",
            "narrow",
            "tensor_split",
            "unbind",
            "split_with_sizes",
        )


def is_activation_module(module: nn.Module) -> bool:
    """Whether a module is an elementwise nonlinearity."""
    if type(module).__module__ == "torch.nn.modules.activation":
        return not isinstance(
            module, (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax)
        )
    return isinstance(
        module, (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh)
    )


def activation_function(name: str) -> Any:
    """The out-of-place function for an activation's name, as `torch.nn.functional` spells it."""
    plain = name.removesuffix("_") if name not in ("hardtanh_",) else "hardtanh"
    return getattr(F, plain, None) or getattr(torch, plain, None)
