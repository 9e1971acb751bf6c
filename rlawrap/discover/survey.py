"""The survey of a network: its joins and its candidates, measured once for all rules."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property

from torch import fx

from rlawrap.capture.trace import Call, Frame
from rlawrap.discover.candidates import Candidate, Evidence, Kind
from rlawrap.discover.joins import Join, find_joins
from rlawrap.discover.measures import gathers, kernel_inside, token_owners, wrapped
from rlawrap.discover.places import CONTAINERS, Places, class_of, parent_of
from rlawrap.discover.plain import layer_candidates
from rlawrap.discover.steps import step_regions
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import tensors_of
from rlawrap.flow.vocabulary import holds_convolution, is_convolution


class Survey:
    """What the rules may ask of a network; nothing in it changes once it is made."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.modules = dict(flow.trace.root.named_modules())
        self.places = Places(self.modules)
        #: The nodes that ran in each call of a module.
        self.ran: Mapping[Frame, list[fx.Node]] = _nodes_of_calls(flow)
        self.joins = find_joins(flow, self.ran)
        self._joins_of: dict[str, list[Join]] = {}
        for join in self.joins:
            self._joins_of.setdefault(join.owner, []).append(join)
        self._count()
        #: Every candidate by name, in the order in which they are called.
        self.candidates: Mapping[str, Candidate] = {c.name: c for c in self._list()}

    @cached_property
    def layers(self) -> Mapping[str, Candidate]:
        """Convolutions with norm and activation: candidates where nothing else is."""
        return {c.name: c for c in layer_candidates(self.flow, self.ran, self.modules)}

    @cached_property
    def calls(self) -> Mapping[str, list[tuple[Frame, Call]]]:
        """The calls of each module that was traced through, in order."""
        calls: dict[str, list[tuple[Frame, Call]]] = defaultdict(list)
        for frame, call in self.flow.trace.calls.items():
            calls[frame[0]].append((frame, call))
        return calls

    @cached_property
    def whole_calls(self) -> Mapping[str, list[tuple[fx.Node, Frame]]]:
        """The calls of each module that was kept whole, in order."""
        calls: dict[str, list[tuple[fx.Node, Frame]]] = defaultdict(list)
        for node, frame in self.flow.trace.leaf_frames.items():
            calls[frame[0]].append((node, frame))
        return calls

    def __getitem__(self, name: str) -> Candidate:
        """The candidate of a name."""
        return self.candidates[name] if name in self.candidates else self.layers[name]

    def nodes_of(self, path: str) -> list[fx.Node]:
        """Data nodes of a module's first call."""
        return [n for n in self.ran.get((path, 0), ()) if n in self.flow.data]

    def class_of(self, path: str) -> type:
        """A module's class; a parametrized one (weight norm) has a class of its own otherwise."""
        return class_of(self.modules[path])

    def is_container(self, path: str) -> bool:
        return isinstance(self.modules[path], CONTAINERS)

    def home(self, path: str) -> str:
        """The nearest module around one that is no container."""
        above = parent_of(path)
        return self.home(above) if above and self.is_container(above) else above

    def result(self, returned: list[fx.Node]) -> fx.Node | None:
        """Of what a call returns the image with the most above it, if the output reads one."""
        flow = self.flow
        images = [n for n in returned if n in flow.data and flow.alive(n) and flow.is_image(n)]
        return max(images, key=lambda n: flow.above[n].bit_count(), default=None)

    def _count(self) -> None:
        """Which modules run on the way to the output, and the convolutions in each.

        Of a module that is called several times those of the first call that the output reads.
        """
        flow = self.flow
        self._alive: set[str] = set()
        self.conv_paths: set[str] = set()
        self._spatial: set[str] = set()
        living: dict[str, Counter[int]] = defaultdict(Counter)
        for node in flow.nodes:
            if node not in flow.data:
                continue
            frames, alive = flow.trace.stacks.get(node, ()), flow.alive(node)
            if alive:
                self._alive.update(path for path, _ in frames)
            conv = flow.ops.conv(node)
            if conv is None:
                continue
            self.conv_paths.update(path for path, _ in frames)
            if conv.spatial_kernel:
                self._spatial.update(path for path, _ in frames)
            if alive and flow.is_image(node):
                for path, call in frames:
                    living[path][call] += 1
        self._convolutions = Counter({path: calls[min(calls)] for path, calls in living.items()})

    def _list(self) -> Iterator[Candidate]:
        """Modules that convolve on the way to the output, and the steps of those that join."""
        calls = Counter(path for path, _ in self.flow.trace.calls if path in self._alive)
        whole = self._kept_whole()
        paths = [p for p in {**calls, **whole} if p and self._convolves(p)]
        classes = Counter(map(self.class_of, paths))
        places = Counter(map(self.places.place, paths))
        owners = {p for p in self._joins_of if p and p in self.conv_paths}
        tokens = token_owners(self.flow, self.conv_paths)
        images = self._returning_images()
        for path in paths:
            module, cls, place = self.modules[path], self.class_of(path), self.places.place(path)
            around = [path[:i] for i, c in enumerate(path) if c == "."]
            evidence = Evidence(
                joins=tuple(self._joins_of[path]) if path in owners else (),
                convolutions=self._convolutions[path],
                spatial=path in self._spatial or (path in whole and kernel_inside(module)),
                image=path in images,
                container=self.is_container(path),
                calls=calls[path] or whole[path],
                of_class=classes[cls],
                place=place,
                repeats=self.places.repeats(path),
                at_place=places[place],
                nesting=sum(above in owners for above in around),
                wraps=wrapped(module) if path in owners else None,
                gathers=path not in self._spatial and gathers(self.flow, self.nodes_of(path)),
                tokens=path in tokens,
            )
            kind = Kind.WHOLE if path in whole else _kind(evidence)
            yield Candidate(
                name=path, kind=kind, path=path, cls=cls, label=cls.__name__, evidence=evidence
            )
        for path in ("", *(p for p in paths if p in owners)):
            yield from self._steps(path)

    def _convolves(self, path: str) -> bool:
        return path in self.conv_paths or holds_convolution(self.modules[path])

    def _returning_images(self) -> set[str]:
        """Modules of which a call returns an image on the way to the output."""
        trace = self.flow.trace
        found = {p for n, (p, _) in trace.leaf_frames.items() if self.result([n]) is not None}
        for (path, _), call in trace.calls.items():
            if path not in found and self.result(tensors_of(call.output)) is not None:
                found.add(path)
        return found

    def _kept_whole(self) -> Counter[str]:
        """Calls of modules that hold convolutions and were not traced into."""
        flow = self.flow
        called = [
            path
            for node, (path, _) in flow.trace.leaf_frames.items()
            if node in flow.data and flow.alive(node)
        ]
        return Counter(
            p
            for p in called
            if holds_convolution(self.modules[p]) and not is_convolution(self.modules[p])
        )

    def _steps(self, path: str) -> Iterator[Candidate]:
        """The steps that a forward makes one after the other, if it makes several joins."""
        joins = self._joins_of.get(path, [])
        if len(joins) < (2 if path else 1):
            return
        cls = self.class_of(path)
        regions = step_regions(self.flow, path, joins)
        for i, region in enumerate(regions):
            convs = sum(self.flow.ops.conv(n) is not None for n in region.nodes)
            evidence = Evidence(joins=region.joins, convolutions=convs)
            yield Candidate(
                name=f"{path}[{i}]",
                kind=Kind.STEP,
                path=path,
                cls=cls,
                label=f"step of {cls.__name__}",
                evidence=evidence,
                region=region,
            )


def _nodes_of_calls(flow: Flow) -> dict[Frame, list[fx.Node]]:
    ran: dict[Frame, list[fx.Node]] = defaultdict(list)
    for node in flow.nodes:
        for frame in flow.trace.stacks.get(node, ()):
            ran[frame].append(node)
    return ran


def _kind(evidence: Evidence) -> Kind:
    if evidence.joins:
        return Kind.OWNER
    if evidence.of_class > 1 and not evidence.container:
        return Kind.CLASS
    return Kind.PLACE if evidence.at_place > 1 and evidence.repeats > 1 else Kind.MODULE
