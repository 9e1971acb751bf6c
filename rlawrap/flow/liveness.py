"""Liveness: what of a data flow can change what is returned, by a gradient.

Only what is certain is called dead. A scale that starts at zero and is learned is alive, and so is
an activation that happens to be off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from torch import fx, nn

from rlawrap.capture.tensors import assign
from rlawrap.capture.trace import name_of
from rlawrap.flow import vocabulary as words
from rlawrap.flow.dataflow import Flow, returned
from rlawrap.walks import chain, search

#: What passes no gradient on, whatever it returns; what returns no floats is known by that.
_CUTS = frozenset(
    "detach detach_ sign sgn round round_ floor floor_ ceil ceil_ trunc zeros_like ones_like "
    "empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full".split()
)
#: Of these the first argument alone is read, of the second its shape or type.
_FIRST_ALONE = frozenset("expand_as view_as reshape_as type_as".split())
_ZEROS = frozenset("zeros zeros_like new_zeros".split())
_KEEPS_ZERO = words.IDENTITIES | frozenset(
    "view reshape expand expand_as unsqueeze squeeze permute transpose flatten getitem repeat "
    "getattr detach".split()
)
_PRODUCTS = words.MUL_METHODS | frozenset(
    "multiply linear conv1d conv2d conv3d matmul bmm mm".split()
)
_SOFTMAX = frozenset("softmax log_softmax".split())


class Liveness:
    """Which nodes of a flow reach others by ways that pass a gradient."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._zero: dict[fx.Node, bool] = {}

    def returned(self) -> set[fx.Node]:
        """The nodes that some tensor among the outputs can learn from."""
        alive: set[fx.Node] = set()
        self.extend(alive, (n for n in returned(self.flow.nodes[-1]) if n in self.flow.data))
        return alive

    def extend(self, alive: set[fx.Node], goals: Iterable[fx.Node]) -> None:
        """Put into `alive` the nodes that a gradient of one of `goals` is passed to, they included.

        `alive` is empty or was extended before: all that a node of it passes a gradient to is in it
        already, so that over all calls each node is looked at once.
        """

        def passed(node: fx.Node) -> list[fx.Node]:
            return [s for s in self.flow.sources[node] if s not in alive and not self.lost(s, node)]

        alive.update(search([goal for goal in goals if goal not in alive], passed))

    def cuts(self, node: fx.Node) -> Iterator[tuple[fx.Node, str]]:
        """Where what a node computes is lost: the nodes, and what each does."""

        def onward(n: fx.Node) -> list[fx.Node]:
            return [u for u in n.users if u in self.flow.data and not self.lost(n, u)]

        for other in search([node], onward):
            for user in other.users:
                why = self.lost(other, user) if user in self.flow.data else ""
                if why:
                    yield user, why

    def lost(self, source: fx.Node, node: fx.Node) -> str:
        """Why nothing of `source` is passed on by a node that reads it, or nothing."""
        dtype = self.flow.shapes.dtypes.get(node)
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            return "returns no floats"
        rows = [row for row in self.flow.shapes.rows(node) if row is not None]
        if rows and not any(map(math.prod, rows)):
            return "keeps nothing of it"
        if self.flow.trace.leaf(node) is None:
            why = self._lost_by_function(source, node)
            if why:
                return why
        if self._normalises_one(source, node):
            return "normalises each value alone"
        if self._averages_centred(node):
            return "averages what an instance norm has centred"
        return ""

    def _lost_by_function(self, source: fx.Node, node: fx.Node) -> str:
        name = name_of(node)
        if not _of_torch(node):
            return ""
        data = name == "getattr" and node.args[1] == "data"
        if name in _CUTS or data:
            return "passes no gradient on"
        if name in _FIRST_ALONE and source is not node.args[0]:
            return "reads its shape or type alone"
        given = [*node.args[:2], *(node.kwargs.get(key) for key in ("input", "weight", "other"))]
        multiplies = name in _PRODUCTS or node.target in words.MULS
        if multiplies and any(map(self._is_zero, given)):
            return "multiplies it by zero"
        return ""

    def _is_zero(self, value: object) -> bool:
        """Whether a value is zero as long as nobody loads another: no parameter ever is."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value == 0
        if not isinstance(value, fx.Node):
            return False
        if value not in self._zero:
            self._zero[value] = False  # of a value that is computed from itself
            self._zero[value] = self._find_zero(value)
        return self._zero[value]

    def _find_zero(self, node: fx.Node) -> bool:
        trace = self.flow.trace
        if node.op == "get_attr":
            tensor = trace.shadow.buffers.get(str(node.target))
            tensor = trace.constants.get(str(node.target)) if tensor is None else tensor
            if tensor is None or tensor.device.type == "meta" or self._written(node):
                return False
            return tensor.is_floating_point() and not bool(tensor.any())
        if trace.leaf(node) is not None or not _of_torch(node):
            return False
        name = name_of(node)
        if name in _ZEROS:
            return True
        if name in _KEEPS_ZERO:
            return self._is_zero(node.args[0] if node.args else None)
        if name in words.MUL_METHODS or node.target in words.MULS:
            return any(self._is_zero(value) for value in node.args)
        return False

    def _written(self, node: fx.Node) -> bool:
        """Whether forward writes into a buffer, or a view of it: the next call finds other values.

        Within a call what is read behind a write is another node.
        """
        reads = [n for n in self.flow.nodes if n.op == "get_attr" and n.target == node.target]
        views = search(reads, lambda n: [u for u in n.users if name_of(u) in _KEEPS_ZERO])
        return any(_writes(user) for view in views for user in view.users)

    def _normalises_one(self, source: fx.Node, node: fx.Node) -> bool:
        """Whether a norm or a softmax takes every value alone, at all sizes: it has no choice."""
        rows = [row for row in self.flow.shapes.rows(source) if row is not None]
        module, name = self.flow.trace.leaf(node), name_of(node)
        if isinstance(module, nn.LayerNorm):
            return math.prod(module.normalized_shape) == 1
        if module is None and name == "layer_norm":
            shape = node.args[1] if len(node.args) > 1 else node.kwargs.get("normalized_shape")
            known = isinstance(shape, (tuple, list)) and all(isinstance(n, int) for n in shape)
            return known and math.prod(shape) == 1  # type: ignore[arg-type]
        groups = _groups(module, node)
        if groups is not None:
            return all(row[1] // (groups or row[1]) * math.prod(row[2:]) == 1 for row in rows)
        if isinstance(module, (nn.Softmax, nn.LogSoftmax)) or name in _SOFTMAX:
            dim = module.dim if module is not None else _dim(node)
            return isinstance(dim, int) and all(row[dim] == 1 for row in rows)
        return False

    def _averages_centred(self, node: fx.Node) -> bool:
        """Whether a node averages whole images of which a norm took the average of each channel.

        A dense convolution of one pixel keeps that average, and so does a change of type.
        """
        if not self._averages_images(node):
            return False

        def before(n: fx.Node) -> fx.Node | None:
            conv = self.flow.ops.conv(n)
            window = None if conv is None or conv.transposed else conv.window
            keeps = (
                window is not None and not any(window.padding) and window.kernel == window.stride
            )
            keeps = keeps and math.prod(window.kernel) == 1  # type: ignore[union-attr]
            follows = self.flow.ops.identity(n) or keeps
            return self.flow.sources[n][0] if follows else None

        norm = chain(self.flow.sources[node][0], before)[-1]
        groups, row = _groups(self.flow.trace.leaf(norm), norm), self.flow.shapes.of(norm)
        return groups is not None and row is not None and groups in (0, row[1])

    def _averages_images(self, node: fx.Node) -> bool:
        """Whether a node takes the average of every whole image alone."""
        before = self.flow.shapes.of(self.flow.sources[node][0]) if self.flow.sources[node] else ()
        module, name = self.flow.trace.leaf(node), name_of(node)
        if not before or len(before) < 3:
            return False
        axes = set(range(2, len(before)))
        if module is None and name == "mean":
            dims = _dim(node)
            listed = dims if isinstance(dims, (tuple, list)) else (dims,)
            return (
                all(isinstance(d, int) for d in listed)
                and {d % len(before) for d in listed} == axes
            )
        pools = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
        if isinstance(module, pools) or name.startswith("adaptive_avg_pool"):
            return all(math.prod(row[2:]) == 1 for row in self.flow.shapes.rows(node) if row)
        return False


def _of_torch(node: fx.Node) -> bool:
    """Whether a node calls a method of tensors or a function of PyTorch, and no custom one."""
    if node.op == "call_method":
        return True
    module = getattr(node.target, "__module__", None) or "torch"
    return node.op == "call_function" and module.partition(".")[0] in (
        "torch",
        "_operator",
        "builtins",
    )


def _writes(node: fx.Node) -> bool:
    """Whether a node may write into what it reads."""
    name = name_of(node)
    in_place = name.endswith("_") and not name.endswith("__")
    return node.target is assign or in_place or "out" in node.kwargs


def _groups(module: nn.Module | None, node: fx.Node) -> int | None:
    """The groups of channels that a norm over images takes apart, 0 for each channel alone."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups
    if isinstance(module, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)):
        return None if module.track_running_stats else 0
    if module is not None or node.op != "call_function":
        return None
    if name_of(node) == "instance_norm":
        plain = len(node.args) < 2 and node.kwargs.get("running_mean") is None
        return 0 if plain else None
    if name_of(node) == "group_norm":
        groups = node.args[1] if len(node.args) > 1 else node.kwargs.get("num_groups")
        return groups if isinstance(groups, int) else None
    return None


def _dim(node: fx.Node) -> Any:
    """The axis or axes that a function of a tensor takes."""
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
