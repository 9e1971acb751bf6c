"""Which modules are residual or branching blocks: joins, their owners, and what is no block."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from torch import fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from rlawrap.capture.trace import Frame
from rlawrap.flow.dataflow import Flow

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def parent_of(path: str) -> str:
    return path.rpartition(".")[0]


def inside(path: str, outer: str) -> bool:
    """Whether a module path lies strictly below another."""
    return path != outer and (outer == "" or path.startswith(outer + "."))


def blank_numbers(path: str) -> str:
    return re.sub(r"\d+", "*", path)


def numbered(path: str) -> int:
    """How many parts of a path carry a number: two for `stages.0.blocks.1` and `layer1.0`."""
    return sum(any(c.isdigit() for c in part) for part in path.split("."))


@dataclass
class Owners:
    """Joins by the path of the module whose forward made them, and what was set aside and why."""

    joins: dict[str, list[fx.Node]]
    set_aside: dict[str, str] = field(default_factory=dict)


class OwnerRules:
    """Turns joins into block modules, one rule a method (numbers as in docs/discovery.md)."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.trace = flow.trace
        self.modules = dict(flow.trace.root.named_modules())
        self.frame_nodes: dict[Frame, list[fx.Node]] = defaultdict(list)
        self.conv_paths: set[str] = set()
        for node in flow.nodes:
            frames = self.trace.stacks.get(node, ())
            for frame in frames:
                self.frame_nodes[frame].append(node)
            if node in flow.data and flow.ops.conv(node) is not None:
                self.conv_paths.update(path for path, _ in frames)

    def type_of(self, path: str) -> type:
        """A module's class; a parametrized one (weight norm) has a class of its own otherwise."""
        return type_before_parametrizations(self.modules[path])

    def is_container(self, path: str) -> bool:
        return isinstance(self.modules[path], CONTAINERS)

    def nodes_of(self, path: str) -> list[fx.Node]:
        """Data nodes of a module's first call."""
        return [n for n in self.frame_nodes.get((path, 0), ()) if n in self.flow.data]

    def join_operands(self, node: fx.Node) -> list[fx.Node] | None:
        """Operands of an add of two equal images from different paths, or of a concatenation."""
        flow = self.flow
        if node not in flow.data or not flow.is_image(node):
            return self._stacked(node)
        pair = flow.ops.add_operands(node)
        if pair is not None:
            a, b = pair
            if a in flow.data and b in flow.data and self._equal_where_added(node, a, b):
                return [a, b]
            return None
        items = flow.ops.cat_operands(node)
        if items is None:
            return None
        items = [n for n in dict.fromkeys(items) if n in flow.data and flow.is_image(n)]
        return items if len(items) >= 2 else None

    def _equal_where_added(self, add: fx.Node, a: fx.Node, b: fx.Node) -> bool:
        """Whether two operands have one shape at each probe size that the addition takes."""
        rows = (self.flow.shapes.rows(n) for n in (add, a, b))
        return all(x == y for out, x, y in zip(*rows, strict=True) if out is not None)

    def _stacked(self, node: fx.Node) -> list[fx.Node] | None:
        """`torch.stack` of branches has one axis more than an image."""
        if node not in self.flow.data:
            return None
        items = self.flow.ops.cat_operands(node) or []
        items = [n for n in dict.fromkeys(items) if n in self.flow.data and self.flow.is_image(n)]
        return items if len(items) >= 2 else None

    def all_joins(self) -> list[fx.Node]:
        return [n for n in self.flow.nodes if self.join_operands(n) is not None]

    def token_owners(self) -> list[str]:
        """Modules with a residual add of sequences: images whose pixels were made one axis."""
        flow = self.flow
        alive = flow.above[flow.main_output]
        paths: dict[str, None] = {}
        for node in flow.nodes:
            pair = flow.ops.add_operands(node) if node in flow.data else None
            if pair is None or not all(n in flow.data for n in pair):
                continue
            a, b = (flow.shapes.of(n) for n in pair)
            path = self.trace.owner(node)[0]
            sequence = a is not None and a == b and len(a) == flow.rank - 1 >= 3
            if sequence and path in self.conv_paths and alive >> flow.position[node] & 1:
                paths[path] = None
        return [p for p in paths if not any(inside(p, q) for q in paths)]

    def find(self) -> Owners:
        """All owners that are blocks by structure, outermost first; closure comes later."""
        alive = self.flow.above[self.flow.main_output]
        by_owner: dict[str, list[fx.Node]] = defaultdict(list)
        for node in self.all_joins():
            path = self.trace.owner(node)[0]
            if alive >> self.flow.position[node] & 1 and path and path in self.conv_paths:
                by_owner[path].append(node)
        owners = Owners(dict(by_owner))
        self._promote_wrappers(owners)
        linear = {p for p, joins in owners.joins.items() if all(map(self.is_linear, joins))}
        if len(linear) < len(owners.joins):
            for path in linear:
                self._drop(owners, path, "adds linear branches that fold into one convolution")
        self._drop_composites(owners)
        self._promote_containers(owners)
        self._drop_composites(owners)
        self._drop_aggregators(owners)
        self._keep_outermost(owners)
        return owners

    @staticmethod
    def _drop(owners: Owners, path: str, reason: str) -> None:
        del owners.joins[path]
        owners.set_aside[path] = reason

    def is_linear(self, join: fx.Node) -> bool:
        """No activation, gate or pooling between the owner's input and its join (rule 12)."""
        flow = self.flow
        frame = self.trace.owner(join)
        mine = flow.bits(n for n in self.frame_nodes[frame] if n in flow.data)
        before = flow.members(flow.above[join] & mine & ~(1 << flow.position[join]))
        operands = self.join_operands(join) or []
        if not any(flow.ops.conv(n) for n in before):
            return False
        if flow.ops.cat_operands(join) is not None or not operands:
            return False
        return not any(
            flow.ops.activation(n)
            or flow.ops.gate(n)
            or (flow.ops.conv(n) is None and flow.ops.window(n) is not None)
            or "attention" in str(n.target)
            or "softmax" in str(n.target)
            or n.target == "matmul"
            for n in before
        )

    def _drop_composites(self, owners: Owners) -> None:
        """An owner that holds a container of owners of one class is a stage (rule 8)."""
        while True:
            stages = {self.type_of(p) for p in owners.joins if self._is_composite(p, owners)}
            found = [p for p in owners.joins if self.type_of(p) in stages]
            if not found:
                return
            for path in found:
                self._drop(owners, path, "a stage: it holds blocks")

    def _is_composite(self, path: str, owners: Owners) -> bool:
        below = [p for p in owners.joins if inside(p, path)]
        classes = {self.type_of(p) for p in below}
        if len(classes) > 1 and self.type_of(path) in classes and not self.is_container(path):
            return True  # an hourglass: a block holds no other block of its own class
        if self._adds(owners.joins[path]):
            # A ghost module or a mixed convolution is a part of the residual block around it.
            below = [p for p in below if self._adds(owners.joins[p])]
        below = [p for p in below if not any(inside(p, q) for q in below)]
        count: Counter[tuple[str, type]] = Counter()
        for p in below:
            container = parent_of(p)
            if (container == path or inside(container, path)) and self.is_container(container):
                count[(container, self.type_of(p))] += 1
        # A list that holds nothing but one block is a stage of depth one.
        return any(n >= 2 or n == len(self.modules[c]) for (c, _), n in count.items())  # type: ignore[arg-type]

    def _adds(self, joins: list[fx.Node]) -> bool:
        return any(self.flow.ops.add_operands(n) is not None for n in joins)

    def _promote_containers(self, owners: Owners) -> None:
        """A Sequential that joins inside a module of its own belongs to that module (rule 10)."""
        children: dict[str, list[str]] = defaultdict(list)
        for path in owners.joins:
            if self.is_container(path):
                parent = parent_of(path)
                while parent and self.is_container(parent):
                    parent = parent_of(parent)
                children[parent].append(path)
        for parent, paths in children.items():
            # Several in a list are blocks of a stage; several attributes are parts of one block.
            parts = all(parent_of(p) == parent and not p[-1].isdigit() for p in paths)
            if parent and (parts or len(paths) == 1):
                moved = [node for p in paths for node in owners.joins.pop(p)]
                owners.joins[parent] = sorted(
                    [*owners.joins.get(parent, []), *moved], key=self.flow.position.__getitem__
                )

    def _drop_aggregators(self, owners: Owners) -> None:
        """First concatenates only its own inputs, and has no spatial kernel (rule 9)."""
        for path in list(owners.joins):
            nodes = self.nodes_of(path)
            mine = set(nodes)
            first = next((n for n in nodes if self.flow.sources[n]), None)
            items = self.flow.ops.cat_operands(first) if first is not None else None
            if items is None or any(n in mine for n in items):
                continue
            convs = [c for n in nodes if (c := self.flow.ops.conv(n)) is not None]
            if not any(c.spatial_kernel for c in convs):
                self._drop(owners, path, "only gathers the outputs of other blocks")

    def _promote_wrappers(self, owners: Owners) -> None:
        """`Residual(fn)` around unlike modules is a part of the block it lies in (rule 11)."""
        by_class: dict[type, list[str]] = defaultdict(list)
        for path in owners.joins:
            if self._wrapped(path) is not None:
                by_class[self.type_of(path)].append(path)
        for paths in by_class.values():
            targets = self._wrapper_targets(paths)
            places = {blank_numbers(t) for t in targets.values()}
            for path in paths:
                if path in targets:
                    moved = [*owners.joins.get(targets[path], []), *owners.joins.pop(path)]
                    owners.joins[targets[path]] = sorted(moved, key=self.flow.position.__getitem__)
                elif places and blank_numbers(path) not in places:
                    self._drop(owners, path, "a transition: its like are parts of larger blocks")

    def _wrapper_targets(self, paths: list[str]) -> dict[str, str]:
        """For the wrappers of one class, the module that each is a part of, where there is one."""
        differ = len({self._kind(self._wrapped(p))[0] for p in paths}) > 1
        parents: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            parent = parent_of(path)
            while parent and self.is_container(parent):
                parent = parent_of(parent)
            parents[parent].append(path)
        repeats = Counter(self.type_of(p) for p in parents)
        stages = {"", *(q for q, parts in parents.items() if self._wraps_alike(q, parts))}
        for parent in parents:  # what holds a block is none
            while parent:
                parent = parent_of(parent)
                stages.add(parent)
        stage_classes = {self.type_of(q) for q in stages}
        targets: dict[str, str] = {}
        for parent, parts in parents.items():
            whole = self.type_of(parent) not in stage_classes and repeats[self.type_of(parent)] > 1
            for path in parts:
                if whole and (differ or self._only_child(path, parent)):
                    targets[path] = parent
                elif self._is_mixer(parent_of(path), paths):
                    targets[path] = parent_of(path)
        return targets

    def _wraps_alike(self, parent: str, parts: list[str]) -> bool:
        """Two wrappers of like modules in one container: a stage lists its blocks."""
        kinds = Counter(
            (parent_of(p), self._kind(self._wrapped(p))) for p in parts if parent_of(p) != parent
        )
        return any(n > 1 for n in kinds.values())

    def _kind(self, module: nn.Module | None) -> tuple[object, ...]:
        kind = None if module is None else type_before_parametrizations(module)
        inner = module.children() if isinstance(module, CONTAINERS) else ()
        return (kind, *(self._kind(c) for c in inner))

    def _only_child(self, path: str, parent: str) -> bool:
        """Whether everything that a module learns lies in one child."""
        return parent_of(path) == parent and all(
            name.startswith(path[len(parent) :].lstrip(".") + ".")
            for name, _ in self.modules[parent].named_parameters()
        )

    def _wrapped(self, path: str) -> nn.Module | None:
        """The one child with parameters of a generic wrapper, or None; a scale may be beside it."""
        module = self.modules[path]
        if any(p.numel() != max(p.shape, default=1) for p in module.parameters(recurse=False)):
            return None
        children = [c for c in module.children() if any(True for _ in c.parameters())]
        return children[0] if len(children) == 1 else None

    def _is_mixer(self, parent: str, wrappers: list[str]) -> bool:
        """A Sequential of exactly one wrapper and a convolution, as in ConvMixer."""
        if not parent or type(self.modules[parent]) is not nn.Sequential:
            return False
        children = [f"{parent}.{name}" for name, _ in self.modules[parent].named_children()]
        if sum(c in wrappers for c in children) != 1:
            return False
        return any(isinstance(self.modules[c], nn.modules.conv._ConvNd) for c in children)

    def _keep_outermost(self, owners: Owners) -> None:
        """Owners nest: the outermost is the block (rule 7)."""
        for path in list(owners.joins):
            if any(inside(path, other) for other in owners.joins):
                del owners.joins[path]
