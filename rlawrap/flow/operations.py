"""What a node of the graph does: convolution, norm, activation, pooling, join, layout change."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from rlawrap.capture.shapes import Shapes
from rlawrap.capture.trace import Trace, name_of
from rlawrap.flow import vocabulary as words
from rlawrap.flow.convolutions import Convolutions, argument, setting, window_of_call
from rlawrap.flow.windows import Conv, Window, per_axis
from rlawrap.walks import search


class Ops:
    """Answers about the nodes of one trace; everything is read off modules, arguments, shapes."""

    def __init__(self, trace: Trace, shapes: Shapes) -> None:
        self.trace = trace
        self.shapes = shapes
        self._convolutions = Convolutions(trace, shapes, self.leaf)
        self._leaves: dict[fx.Node, nn.Module | None] = {}

    def leaf(self, node: fx.Node) -> nn.Module | None:
        """The elementary module that a node calls, or None."""
        if node not in self._leaves:
            self._leaves[node] = self.trace.leaf(node)
        return self._leaves[node]

    def _setting(self, node: fx.Node, index: int, name: str, default: Any = None) -> Any:
        return setting(self.shapes, node, index, name, default)

    def conv(self, node: fx.Node) -> Conv | None:
        """The learned convolution or linear layer that a node is, or None."""
        return self._convolutions.of(node)

    def image(self, node: fx.Node) -> fx.Node | None:
        """The images that a convolution with a filter for each of them reads, at its end."""
        return self._convolutions.image(node)

    def norm(self, node: fx.Node) -> bool:
        """A normalisation, with or without an activation of its own."""
        module = self.leaf(node)
        if module is not None:
            return words.is_norm(type(module)) and not words.holds_convolution(module)
        return node.op == "call_function" and name_of(node) in words.NORMS

    def batch_norm(self, node: fx.Node) -> bool:
        """A normalisation over the images of a batch."""
        module = self.leaf(node)
        if module is None:
            return name_of(node) == "batch_norm"
        return any("BatchNorm" in cls.__name__ for cls in type(module).__mro__)

    def norm_activation(self, node: fx.Node) -> nn.Module | None:
        """The activation that a norm module carries, or None."""
        module = self.leaf(node)
        if module is None or not self.norm(node):
            return None
        idle = (nn.Identity, *words.NORM_MODULES)
        for child in module.children():
            if not isinstance(child, idle) and not words.is_dropout(type(child)):
                return child
        return None

    def activation(self, node: fx.Node) -> bool:
        """An elementwise nonlinearity, or a norm module that carries one."""
        module = self.leaf(node)
        if module is not None:
            if self.norm(node):
                return self.norm_activation(node) is not None
            return words.is_activation(module)
        return _calls(node) and name_of(node) in words.ACTIVATIONS

    def squash(self, node: fx.Node) -> bool:
        """Gives numbers between 0 and 1, as gates are."""
        module = self.leaf(node)
        if module is not None:
            return isinstance(module, words.SQUASH_MODULES)
        return _calls(node) and name_of(node) in words.SQUASHES

    def dropout(self, node: fx.Node) -> bool:
        """Drops values or branches in train mode, and does nothing in eval mode."""
        module = self.leaf(node)
        if module is not None:
            return words.is_dropout(type(module))
        return _calls(node) and name_of(node) in words.DROPOUTS

    def identity(self, node: fx.Node) -> bool:
        """Returns the values that it gets, perhaps in another layout or type."""
        if isinstance(self.leaf(node), nn.Identity):
            return True
        return node.op == "call_method" and name_of(node) in words.IDENTITIES

    def detaches(self, node: fx.Node) -> bool:
        """Returns the values that it gets, and passes no gradient on to them."""
        return _calls(node) and name_of(node) in ("detach", "detach_")

    def elementwise(self, node: fx.Node) -> bool:
        """An activation (no norm that carries one), dropout or an identity."""
        if self.norm(node):
            return False
        return self.activation(node) or self.dropout(node) or self.identity(node)

    def linear(self, node: fx.Node) -> bool:
        """Is on the list of what keeps a chain of convolutions linear; anything else may not."""
        if self.conv(node) is not None or self.dropout(node) or self.identity(node):
            return True
        if self.norm(node):
            return not self.activation(node)
        if self.leaf(node) is not None:
            return isinstance(self.leaf(node), words.LINEAR_MODULES)
        if self.adds(node) or self.cat_operands(node) is not None or self.summed(node):
            return True
        if self.splits(node):
            return True
        return _calls(node) and name_of(node) in words.LINEAR

    def product(self, node: fx.Node) -> bool:
        """Multiplies or divides, by a tensor or a number."""
        return _calls(node) and name_of(node) in words.PRODUCTS

    def window(self, node: fx.Node) -> Window | None:
        """The sliding window of a convolution or pool, learned or not."""
        conv = self.conv(node)
        if conv is not None:
            return None if conv.transposed else conv.window
        module = self.leaf(node)
        shape = self.shapes.of(node)
        if shape is None:
            return None
        dims = len(shape) - 2
        if isinstance(module, words.POOL_MODULES):
            stride = module.stride if module.stride is not None else module.kernel_size
            return Window(
                per_axis(module.kernel_size, dims),
                per_axis(stride, dims),
                per_axis(getattr(module, "padding", 0), dims),
                per_axis(getattr(module, "dilation", 1), dims),
                bool(module.ceil_mode),
            )
        name = name_of(node)
        if node.op == "call_function" and name in words.POOLS:
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
        return window_of_call(self.shapes, node)

    def max_pool(self, node: fx.Node) -> bool:
        module = self.leaf(node)
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
            order: Any = node.args[1:] if len(node.args) > 2 else argument(node, 1, "dims")
            if isinstance(order, (tuple, list)) and all(isinstance(i, int) for i in order):
                return [axes[i] for i in order]
        if name_of(node) in ("transpose", "swapaxes"):
            i, j = argument(node, 1, "dim0"), argument(node, 2, "dim1")
            if isinstance(i, int) and isinstance(j, int):
                axes[i], axes[j] = axes[j], axes[i]
                return axes
        return None

    def adds(self, node: fx.Node) -> bool:
        """An addition, of two tensors or of a tensor and a number (`sum` starts from 0)."""
        return _adds_plainly(node) or self._weighed(node) is not None

    def add_operands(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """The two tensors that a node adds, each perhaps times a number, or None."""
        if _adds_plainly(node):
            a, b = argument(node, 0, "input"), argument(node, 1, "other")
        else:
            a, b = self._weighed(node) or (None, None)
        if isinstance(a, fx.Node) and isinstance(b, fx.Node) and a is not b:
            return a, b
        return None

    def _weighed(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """The two tensors that a node adds by weights, in one of the ways that are no addition."""
        return _weighted_sum(node) or self._stacked_sum(node)

    def summed(self, node: fx.Node) -> bool:
        """Stacks two tensors, of which nothing but the sum or the mean is read."""
        return any(self._stacked_sum(user) is not None for user in node.users)

    def _stacked_sum(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """The two tensors that a node adds or averages, stacked for this alone; None for others."""
        if not _calls(node) or name_of(node) not in ("sum", "mean"):
            return None
        stack = argument(node, 0, "input")
        if not isinstance(stack, fx.Node) or list(stack.users) != [node]:
            return None
        if stack.op != "call_function" or stack.target is not torch.stack:
            return None
        axis, over = argument(stack, 1, "dim", 0), argument(node, 1, "dim")
        if isinstance(over, (tuple, list)) and len(over) == 1:
            over = over[0]
        shape, items = self.shapes.of(stack), argument(stack, 0, "tensors")
        if shape is None or not isinstance(axis, int) or not isinstance(over, int):
            return None
        if axis % len(shape) != over % len(shape) or argument(node, 2, "keepdim", False):
            return None
        two = isinstance(items, (tuple, list)) and len(items) == 2
        return (items[0], items[1]) if two else None

    def gate(self, node: fx.Node) -> bool:
        """A product of two tensors, of which one may be a learned scale."""
        is_mul = (node.op == "call_function" and node.target in words.MULS) or (
            node.op == "call_method" and node.target in words.MUL_METHODS
        )
        return is_mul and len([a for a in node.args if isinstance(a, fx.Node)]) == 2

    def cat_operands(self, node: fx.Node) -> list[fx.Node] | None:
        """The tensors that a node concatenates, or stacks for more than a sum, or None."""
        if node.op != "call_function" or node.target not in words.CATS:
            return None
        if self.summed(node):
            return None
        items = argument(node, 0, "tensors")
        if not isinstance(items, (tuple, list)):
            return None
        return [item for item in items if isinstance(item, fx.Node)]

    def splits(self, node: fx.Node) -> bool:
        """Takes only part of the channels: chunk, split, narrow or a slice."""
        return _calls(node) and name_of(node) in words.SPLITS


def _adds_plainly(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in words.ADD_METHODS
    return node.op == "call_function" and node.target in words.ADDS


def _weighted_sum(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The two tensors that `lerp` or `addcmul` adds, by weights that are no data; None for others.

    lerp(x, y, w) is x + w (y - x), and addcmul(x, y, w) is x + w y.
    """
    if not _calls(node) or name_of(node) not in words.WEIGHTED_SUMS:
        return None
    lerp = name_of(node).startswith("lerp")
    x = argument(node, 0, "input")
    y = argument(node, 1, "end" if lerp else "tensor1")
    weight = argument(node, 2, "weight" if lerp else "tensor2")
    if not lerp and _fixed(y):
        y, weight = weight, y
    tensors = isinstance(x, fx.Node) and isinstance(y, fx.Node)
    return (x, y) if tensors and _fixed(weight) else None


def _fixed(value: Any) -> bool:
    """Whether a value is a number, or is computed of parameters and buffers alone."""
    if not isinstance(value, fx.Node):
        return True
    return all(n.op != "placeholder" for n in search([value], lambda n: n.all_input_nodes))


def _calls(node: fx.Node) -> bool:
    """Whether a node calls a function or a method."""
    return node.op in ("call_function", "call_method")
