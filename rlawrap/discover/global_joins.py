"""Rule 15 and what it asks: a join around most of a network is a global skip, and no block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

from torch import fx

from rlawrap.discover.candidates import Kind
from rlawrap.discover.measures import depth, learned_layers
from rlawrap.discover.places import inside, outermost
from rlawrap.discover.survey import Survey
from rlawrap.discover.verdicts import Reason, Table, Verdict, Votes

#: So many convolutions one behind the other are more than a block has.
MANY = 4


def global_joins_are_none(survey: Survey, table: Table) -> Votes:
    """Rule 15, `global skip`: the only owner of joins holds most of the network, and is no block.

        body   x ──┬─ conv ─ relu ─ conv ─ relu ─ … ─ conv ─(+)──
                   └────────────── global skip ─────────────┘

    So is one that holds another of its own class, over layers enough (a UNet of nested skips):

        Skip [ conv, Skip [ conv, Skip [ conv ](cat), conv up ](cat), conv up ](cat)

    What repeats inside, or else the layers, are the blocks.
    """
    blocks = [survey[name] for name in table.blocks]
    if len(blocks) != 1 or blocks[0].region is not None or blocks[0].evidence.calls > 1:
        return {}
    path = blocks[0].name
    if table.verdicts[path].reason is not Reason.JOINS:
        return {}
    nodes = survey.nodes_of(path)
    nests = _holds_its_like(survey, path) and layers_in_a_row(survey, nodes) >= MANY - 1
    return {path: Verdict(Reason.SPANS)} if nests or spans(survey, nodes) else {}


def _holds_its_like(survey: Survey, path: str) -> bool:
    """Whether an owner of joins holds another of its class, which is no container's."""
    return not survey.is_container(path) and any(
        c.kind is Kind.OWNER and c.cls is survey.class_of(path) and inside(c.path, path)
        for c in survey.candidates.values()
    )


def spans(survey: Survey, nodes: Iterable[fx.Node]) -> bool:
    """Whether nodes are most of a network, a deep one, in which something else can be blocks."""
    flow = survey.flow
    inside = set(nodes)
    convs = [n for n in flow.nodes if flow.image_conv(n)]
    held = [n for n in convs if n in inside]
    if 2 * len(held) <= len(convs) or depth(flow, held) < MANY:
        return False
    return layers_in_a_row(survey, inside) >= MANY - 1 or bool(repeated_structures(survey))


def layers_in_a_row(survey: Survey, nodes: Iterable[fx.Node]) -> int:
    """How many layers start among `nodes` one behind the other: they would be blocks instead."""
    inside = set(nodes)
    regions = [c.region for c in survey.layers.values() if c.region is not None]
    return depth(survey.flow, [r.nodes[0] for r in regions if r.nodes[0] in inside])


def repeated_structures(survey: Survey) -> list[str]:
    """Modules that learn in the same layers as another, three at least.

    Of several convolutions each; of one, where no activation makes a layer of it (pix2pix).
    """
    found = _alike(survey, 2)
    few = layers_in_a_row(survey, survey.flow.nodes) < MANY - 1
    return _alike(survey, 1) if not found and few else found


def _alike(survey: Survey, fewest: int) -> list[str]:
    """Modules of one structure, of so many convolutions or more; none if there are only two."""
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for name, c in survey.candidates.items():
        known = c.evidence
        if c.region is None and known.image and known.spatial and known.convolutions >= fewest:
            groups[learned_layers(survey.modules[c.path])].append(name)
    alike = [outermost(paths) for paths in groups.values()]
    found = outermost(path for paths in alike if len(paths) > 1 for path in paths)
    return found if len(found) > 2 else []
