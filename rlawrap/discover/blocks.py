"""The blocks of a network: owners of joins, closed over class and position, or what repeats."""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx, nn

from rlawrap.capture.trace import Frame
from rlawrap.discover.owners import OwnerRules, blank_numbers, inside, numbered
from rlawrap.discover.parts import convolving_parts, passed_over
from rlawrap.discover.plain import plain_steps
from rlawrap.discover.regions import Found, extend_output, looping_steps, step_regions
from rlawrap.discover.whole import whole_blocks
from rlawrap.errors import PlanError
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import tensors_of

BlockChoice = type | str | Sequence[Any] | Callable[[str, nn.Module], bool]


class BlockFinder:
    """Finds the blocks of one traced network; `left_out` says what was passed over and why."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.rules = OwnerRules(flow)
        self.left_out: dict[str, str] = {}
        self._alive = flow.above[flow.main_output]

    def find(self) -> list[Found]:
        """Blocks in the order they run; an empty list if nothing convolves and repeats."""
        owners = self.rules.find()
        self.left_out.update(owners.set_aside)
        steps: list[Found] = []
        for path in list(owners.joins):
            loop = looping_steps(self.rules, path)
            if loop:
                steps += loop
                del owners.joins[path]
                self.left_out[path] = "a stage: its forward loops over steps"
        paths = self._trim(owners.joins)
        inner = convolving_parts(self.rules, paths)
        if inner:
            self.left_out.update(dict.fromkeys(paths, "concatenates for the block that it holds"))
            paths = inner
        taken = [*paths, *(s.path.partition("[")[0] for s in steps)]
        paths.update(whole_blocks(self.rules, taken, self.left_out, asked=True))
        if paths or steps:
            self._close(paths, steps)
        elif self.rules.token_owners():  # convolutions before a transformer are its patch embedding
            self._leave_out_sequences([])
            return []
        else:
            regions, paths = self._without_joins()
            if not paths:
                return regions
        found = [f for path, joins in paths.items() for f in self._calls(path, joins)]
        self._leave_out_sequences([f.path for f in found])
        known = [*paths, *self.left_out, *(s.path.partition("[")[0] for s in steps)]
        for path in passed_over(self.rules, known):
            self.left_out[path] = "makes no join, as the blocks do; blocks= can take it"
        return sorted([*found, *steps], key=lambda f: self.flow.position[f.output])

    def _without_joins(self) -> tuple[list[Found], dict[str, list[fx.Node]]]:
        """No module joins: steps of the network's own forward, or modules that repeat (rule 16)."""
        regions = step_regions(self.rules, None)
        paths = self._repeated_classes()
        if len(regions) >= 2 and not self._gathers(regions, paths):
            return regions, {}
        if paths or regions:
            return regions, paths
        paths = self._repeated_positions()
        paths = paths or whole_blocks(self.rules, [], self.left_out, asked=False)
        return ([], paths) if paths else (plain_steps(self.rules, self.left_out), {})

    def _leave_out_sequences(self, found: list[str]) -> None:
        """Name the residual modules whose images have become sequences of tokens."""
        for path in self.rules.token_owners():
            if not any(path == f or inside(path, f) or inside(f, path) for f in found):
                self.left_out[path] = "works on a sequence of tokens; h is an image"

    def choose(self, choice: BlockChoice) -> list[Found]:
        """The modules that a user's `blocks=` names. Raises `PlanError` if it names none."""
        called = [p for p in dict.fromkeys(f[0] for f in self._called_frames()) if p]
        parts = list(choice) if isinstance(choice, (list, tuple, set, frozenset)) else [choice]
        hit: list[str] = []
        for part in parts:
            matches = self._matcher(part)
            found_paths = [p for p in called if matches(p, self.rules.modules[p])]
            if not found_paths:
                raise PlanError(self._no_match(part, called))
            hit += found_paths
        hit = [p for p in dict.fromkeys(hit) if not any(inside(p, q) for q in hit)]
        if not hit:
            raise PlanError(self._no_match(choice, called))
        owned = self.rules.all_joins()
        paths = {}
        for path in hit:
            own = [n for n in owned if self.flow.trace.owner(n)[0] == path]
            below = [n for n in owned if inside(self.flow.trace.owner(n)[0], path)]
            paths[path] = own or below
        found = [f for path, joins in paths.items() for f in self._calls(path, joins)]
        return sorted(found, key=lambda f: self.flow.position[f.output])

    def _matcher(self, choice: BlockChoice) -> Callable[[str, nn.Module], bool]:
        if isinstance(choice, type):
            return lambda path, module: isinstance(module, choice)
        if isinstance(choice, str):
            return lambda path, module: fnmatch.fnmatchcase(path, choice)
        if callable(choice):

            def asked(path: str, module: nn.Module) -> bool:
                try:
                    return bool(choice(path, module))
                except Exception as error:
                    raise PlanError(
                        f"blocks=: the function failed for ({path!r}, {type(module).__name__}): "
                        f"{type(error).__name__}: {error}"
                    ) from error

            return asked
        raise PlanError(
            f"blocks={choice!r}: give a class, a tuple of classes, a list of module paths, a glob "
            "such as 'layer*.*', or a function of (path, module)."
        )

    def _no_match(self, choice: BlockChoice, called: list[str]) -> str:
        text = getattr(choice, "__name__", None) or repr(choice)
        near = difflib.get_close_matches(choice, called, n=3) if isinstance(choice, str) else []
        classes = Counter(self.rules.type_of(p).__name__ for p in called)
        repeated = [f"{name} ({n} calls)" for name, n in classes.most_common(6)]
        hint = f"Paths near it: {', '.join(near)}. " if near else ""
        return (
            f"blocks={text} matches no module that the network calls on the way to its output. "
            f"{hint}Classes it calls: {', '.join(repeated)}."
        )

    def _called_frames(self) -> list[Frame]:
        """Frames of traced calls and of whole leaf modules that hold convolutions, on the path."""
        flow = self.flow
        frames = []
        for frame in flow.trace.calls:
            if any(self._on_path(n) for n in self.rules.frame_nodes.get(frame, ())):
                frames.append(frame)
        for node, frame in flow.trace.leaf_frames.items():
            if self._on_path(node):
                frames.append(frame)
        return frames

    def _on_path(self, node: fx.Node) -> bool:
        return node in self.flow.data and bool(self._alive >> self.flow.position[node] & 1)

    def _trim(self, joins: dict[str, list[fx.Node]]) -> dict[str, list[fx.Node]]:
        """A class that occurs once before or after all repeated ones is stem or head (rule 13)."""
        count = Counter(self.rules.type_of(p) for p in joins)
        first = {p: min(self.flow.position[n] for n in joins[p]) for p in joins}
        repeated = [first[p] for p in joins if count[self.rules.type_of(p)] > 1]
        if not repeated:
            return dict(joins)
        kept = {}
        for path, nodes in joins.items():
            single = count[self.rules.type_of(path)] == 1
            if single and not min(repeated) < first[path] < max(repeated):
                side = "stem" if first[path] < min(repeated) else "head"
                self.left_out[path] = f"{side}: the only {self.rules.type_of(path).__name__}"
            else:
                kept[path] = nodes
        return kept

    def _close(self, paths: dict[str, list[fx.Node]], steps: list[Found]) -> None:
        """Add modules of a block's class or position that happen to make no join (rule 14)."""
        modules = self.rules.modules
        classes = {self.rules.type_of(p) for p in paths if not self.rules.is_container(p)}
        patterns = {blank_numbers(p) for p in paths if numbered(p) >= 2}
        taken = [*paths, *(s.path.partition("[")[0] for s in steps)]
        for path in dict.fromkeys(f[0] for f in self._called_frames()):
            if not path or path in paths or self.rules.is_container(path):
                continue
            if any(path == p or inside(path, p) or inside(p, path) for p in taken):
                continue
            same_class = type(modules[path]) in classes
            same_place = blank_numbers(path) in patterns and self._has_spatial_kernel(path)
            elementary = self.flow.ops.conv_module(modules[path])
            if (same_class or (same_place and not elementary)) and self._convolves(path):
                paths[path] = []
                self.left_out.pop(path, None)

    def _convolves(self, path: str) -> bool:
        return path in self.rules.conv_paths or any(
            isinstance(m, (nn.modules.conv._ConvNd, nn.Linear))
            for m in self.rules.modules[path].modules()
        )

    def _has_spatial_kernel(self, path: str) -> bool:
        nodes = self.rules.nodes_of(path)
        convs = [c for n in nodes if (c := self.flow.ops.conv(n)) is not None]
        if any(c.spatial_kernel for c in convs):
            return True
        inner = self.rules.modules[path].modules()
        return not nodes and any(
            isinstance(m, nn.modules.conv._ConvNd) and max(m.kernel_size) > 1 for m in inner
        )

    def _candidates(self) -> list[str]:
        """Modules called on the path, no container or elementary layer, that convolve images.

        A channel gate (ECA) convolves too, over the channels' means.
        """
        return [
            p
            for p in dict.fromkeys(f[0] for f in self.flow.trace.calls)
            if p
            and p in self.rules.conv_paths
            and not self.rules.is_container(p)
            and any(self._on_path(n) and self.flow.is_image(n) for n in self.rules.nodes_of(p))
            and self._weight(p)
        ]

    def _repeated_classes(self) -> dict[str, list[fx.Node]]:
        """No join at all: a class that convolves and is called three times or more (rule 16)."""
        candidates = self._candidates()
        count = Counter(self.rules.type_of(p) for p in candidates)
        hit = [p for p in candidates if count[self.rules.type_of(p)] >= 3]
        if not hit:  # fused layers: a Sequential subclass such as Conv-Norm-Act
            return {}
        best = max(
            {self.rules.type_of(p) for p in hit},
            key=lambda c: sum(self._weight(p) for p in hit if self.rules.type_of(p) is c),
        )
        hit = [p for p in hit if self.rules.type_of(p) is best]
        return {p: [] for p in hit if not any(inside(p, q) for q in hit)}

    def _gathers(self, regions: list[Found], paths: dict[str, list[fx.Node]]) -> bool:
        """Whether regions that add nothing gather the outputs of several repeated modules each."""
        adds = self.flow.ops.add_operands
        if any(adds(join) is not None for region in regions for join in region.joins):
            return False
        inside_of = [{f[0] for n in r.nodes for f in self.flow.trace.stacks[n]} for r in regions]
        return any(len(called & paths.keys()) > 1 for called in inside_of)

    def _weight(self, path: str) -> int:
        nodes = self.rules.nodes_of(path)
        return sum(self.flow.ops.conv(n) is not None and self.flow.is_image(n) for n in nodes)

    def _repeated_positions(self) -> dict[str, list[fx.Node]]:
        """No join, no class three times: modules at one position, with a spatial kernel."""
        candidates = [p for p in self._candidates() if self._has_spatial_kernel(p)]
        count = Counter(blank_numbers(p) for p in candidates if numbered(p) >= 2)
        hit = [p for p in candidates if count[blank_numbers(p)] >= 2]
        return {p: [] for p in hit if not any(inside(p, q) for q in hit)}

    def _calls(self, path: str, joins: list[fx.Node]) -> list[Found]:
        """One block for every call of a module."""
        flow = self.flow
        found = []
        for frame, call in flow.trace.calls.items():
            if frame[0] != path:
                continue
            nodes = [n for n in self.rules.frame_nodes[frame] if n in flow.data]
            output = self._main_of(tensors_of(call.output))
            if output is None:
                continue
            mine = [n for n in joins if n in set(nodes)] or self._twins(joins, frame, nodes)
            found.append(Found(path, self.rules.type_of(path).__name__, frame, nodes, output, mine))
        for node, frame in flow.trace.leaf_frames.items():
            if frame[0] == path and self._on_path(node) and flow.is_image(node):
                cls = self.rules.type_of(path).__name__
                output = extend_output(flow, node) if flow.ops.conv(node) else node
                found.append(Found(path, cls, frame, [node], output))
        return found

    def _twins(self, joins: list[fx.Node], frame: Frame, nodes: list[fx.Node]) -> list[fx.Node]:
        """The joins of a later call of a module whose first call made `joins`."""
        if frame[1] == 0 or not joins:
            return []
        own = [n for n in nodes if self.rules.join_operands(n) is not None]
        direct = [n for n in own if self.flow.trace.owner(n)[0] == frame[0]]
        return direct or own

    def _main_of(self, nodes: list[fx.Node]) -> fx.Node | None:
        """The returned image with the most above it; one that nothing reads is no result."""
        images = [n for n in nodes if self._on_path(n) and self.flow.is_image(n)]
        return max(images, key=lambda n: self.flow.above[n].bit_count()) if images else None
