"""Which parts of a backbone are frozen: its stem and first stages, with h's path through them.

As in MMDetection, 0 freezes the stem and n the first n stages as well: their parameters take no
gradient, and their norms stay in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from torch import fx, nn

from rlawrap.design import names
from rlawrap.design.heads import lies_in
from rlawrap.errors import PlanError
from rlawrap.plan import Plan
from rlawrap.splice.frozen import is_norm
from rlawrap.walks import search


@dataclass(frozen=True)
class FrozenStages:
    """Names of parameters that are not trained, and paths of modules that stay in eval mode."""

    parameters: frozenset[str]
    modules: frozenset[str]


def frozen_parts(
    model: nn.Module, plan: Plan, graphs: Iterable[fx.Graph], stages: int, norms: bool
) -> FrozenStages:
    """What `frozen_stages` and `norm_eval` of `backbone` freeze.

    A stage is frozen with all that its last block's output is computed from: h's way into its
    blocks, the updates of h, and its recurrent cell, unless later stages share it. Raises
    `PlanError` for a number of stages that the backbone does not have.
    """
    known = dict(model.named_modules(remove_duplicate=False))
    still = {path for path, module in known.items() if norms and is_norm(module)}
    targets = _frozen_targets(plan, list(graphs), stages, known)
    parameters = {
        name
        for name, _ in model.named_parameters(remove_duplicate=False)
        if any(lies_in(name, target) for target in targets[0])
    }
    still |= {path for path in known if path and _is_frozen(path, *targets)}
    return FrozenStages(frozenset(parameters), frozenset(still))


def _is_frozen(path: str, frozen: set[str], free: set[str]) -> bool:
    """Whether a module is a frozen layer, a part of one, or holds nothing else."""
    if any(lies_in(path, target) for target in frozen):
        return True
    below = f"{path}."
    return any(t.startswith(below) for t in frozen) and not any(t.startswith(below) for t in free)


def _frozen_targets(
    plan: Plan, graphs: list[fx.Graph], stages: int, modules: Container[str]
) -> tuple[set[str], set[str]]:
    """The layers and tensors that only frozen stages read, and all others."""
    if not isinstance(stages, int) or not -1 <= stages <= len(plan.stages):
        raise PlanError(
            f"backbone: frozen_stages={stages!r}; give -1 for none, 0 for the stem, or up to "
            f"{len(plan.stages)} stages as well."
        )
    frozen: set[str] = set()
    free: set[str] = set()
    for graph in graphs:
        nodes = _frozen_nodes(plan, graph, stages, modules) if stages >= 0 else set()
        for node in graph.nodes:
            if node.op in ("call_module", "get_attr"):
                (frozen if node in nodes else free).add(str(node.target))
    return frozen - free, free


def _frozen_nodes(
    plan: Plan, graph: fx.Graph, stages: int, modules: Container[str]
) -> set[fx.Node]:
    outputs = {str(n.target): n for n in graph.nodes if n.op == "call_module"}
    if stages == 0:
        return _stem(plan, outputs, modules)
    count = sum(len(stage.blocks) for stage in plan.stages[:stages])
    ends = [outputs.get(names.output(i)) for i in range(count)]
    if ends[-1] is None:
        raise PlanError(
            f"backbone: frozen_stages={stages}, but the last map comes before the end of stage "
            f"{stages - 1}. Give `frozen_stages={stages - 1}`."
        )
    return _before(end for end in ends if end is not None) | _update_behind(ends[-1])


def _update_behind(output: fx.Node) -> set[fx.Node]:
    """The update of h by a block: it stands right behind the block's output."""
    update = set()
    node = output.next
    while node.op != "root" and (node.op != "call_module" or _updates(str(node.target))):
        update.add(node)
        node = node.next
    return update


def _updates(target: str) -> bool:
    return any(
        target.startswith(f"{names.part(part)}.")
        for part in ("input", "cell", "block", "scale", "down")
    )


def _stem(plan: Plan, outputs: dict[str, fx.Node], modules: Container[str]) -> set[fx.Node]:
    """What runs before the first block, and not in it."""
    first = plan.blocks[0]
    if first.path in modules and first.path:
        start = outputs[names.output(0)]
        own = (f"{first.path}.", f"{names.ROOT}.")
        return {n for n in _before([start]) if not str(n.target).startswith(own)}
    entries = [outputs[entry] for entry in first.entries if entry in outputs]
    if not entries:
        raise PlanError(
            "backbone: frozen_stages=0, but where the stem ends cannot be told: the first block is "
            "written in the network's own forward. Give `frozen_stages=1`, or -1 for none."
        )
    return _before([node for entry in entries for node in entry.all_input_nodes])


def _before(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Some nodes and all that they are computed from."""
    return set(search(nodes, lambda node: node.all_input_nodes))
