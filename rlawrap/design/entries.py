"""The ways of h into one block and into the classifier, and a note where there is none."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from rlawrap.config import RLAConfig
from rlawrap.design.paths import Path, PathMaker
from rlawrap.errors import PlanError
from rlawrap.flow.dataflow import Flow
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced
from rlawrap.plan import Block, not_entered
from rlawrap.walks import chain, first_hits, only


@dataclass(frozen=True)
class Network:
    """A traced network with what makes paths through it."""

    flow: Flow
    refs: References
    #: The references of its training graph, where that is another.
    training: References | None
    maker: PathMaker

    @classmethod
    def of(cls, traced: Traced, config: RLAConfig) -> Network:
        flow, training = traced.flow, traced.training
        return cls(
            flow,
            References(flow.trace),
            None if training is None else References(training.trace),
            PathMaker(flow, config.k, config.norm),
        )

    def problem(self, path: Path) -> str:
        """Why h cannot go a way, or nothing."""
        if path.problem or self.training is None:
            return path.problem
        names = [self.refs.name(reading.node) for reading in path.readings]
        lost = [name for name in names if self.training.find(name) is None]
        return f"it needs {lost[0]}, which training mode does not compute" if lost else ""


def entry_paths(
    network: Network, block: Block, entries: list[fx.Node], start: fx.Node, inject: str
) -> tuple[list[Path], list[str]]:
    """The ways of h into a block, and a note on each entry that it cannot reach."""
    flow, refs = network.flow, network.refs
    output = refs.node(block.output)
    if inject == "none":
        return [], []
    if inject == "depthwise":
        entries = _depthwise_after(flow, entries, output) or entries
    built: dict[fx.Node, Path] = {}
    notes: list[str] = []
    for layer in entries:
        conv = flow.ops.conv(layer)
        if conv is None:
            raise PlanError(
                f"block {block.path!r}: its entry {refs.name(layer)!r} is no convolution or linear "
                "layer, which h could join."
            )
        deeper = inject == "depthwise" and conv.depthwise
        behind = deeper and not _reads(flow, layer, start)
        path = network.maker.entry(layer, start, output, behind)
        problem = network.problem(path)
        if problem:
            notes.append(f"{not_entered(block.path, refs.name(layer))}{problem}")
        else:
            built.setdefault(path.target, path)
    return list(built.values()), notes


def _reads(flow: Flow, layer: fx.Node, start: fx.Node) -> bool:
    """Whether no convolution lies between a layer and the block's input."""

    def before(node: fx.Node) -> fx.Node | None:
        passes = node is not start and flow.ops.conv(node) is None
        return only(flow.sources[node]) if passes else None

    return chain(flow.sources[layer][0], before)[-1] is start


def _depthwise_after(flow: Flow, entries: list[fx.Node], output: fx.Node) -> list[fx.Node]:
    """A block's first depthwise convolution at or behind its entries (MobileNetV2 as published)."""

    def depthwise(node: fx.Node) -> bool:
        conv = flow.ops.conv(node)
        return conv is not None and conv.depthwise

    def onward(node: fx.Node) -> list[fx.Node]:
        ends = node is output or (flow.ops.conv(node) is not None and node not in entries)
        return [] if ends else [user for user in node.users if user in flow.data]

    return first_hits(entries, onward, depthwise)[:1]
