"""How much h contributes at each layer that it enters: the norm of its share beside x's."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor, fx, nn

from rlawrap.design import names
from rlawrap.errors import PlanError
from rlawrap.show.recording import parts_of, run_watched, shown_name
from rlawrap.splice import RLAModel
from rlawrap.tables import text_table


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One layer that h enters.

    x_norm, h_norm: L2 norms of `Conv_x(x)` and of `Conv_h(h)`, which are added up; each is taken
    over the `elements` of an image and averaged over images. kind: "depthwise" where h has a
    depthwise convolution of its own before; "head" for the classifier.
    """

    part: str
    block: str
    layer: str
    kind: Literal["entry", "depthwise", "head"]
    x_norm: float
    h_norm: float
    elements: int

    @property
    def ratio(self) -> float:
        """h's norm over x's; 0 where both are."""
        return self.h_norm / self.x_norm if self.x_norm else (math.inf if self.h_norm else 0.0)

    @property
    def x_rms(self) -> float:
        """Root mean square of x's share."""
        return self.x_norm / math.sqrt(self.elements)

    @property
    def h_rms(self) -> float:
        """Root mean square of h's share."""
        return self.h_norm / math.sqrt(self.elements)


@dataclass(frozen=True, kw_only=True)
class Gates:
    """All layers that h enters, in the order they run; `print(gates)` shows a table.

    `source` says what the network was run on.
    """

    model: str
    source: str
    gates: tuple[Gate, ...]

    @property
    def verdict(self) -> str:
        """Whether h reaches x at all, in a sentence."""
        silent = sum(gate.h_norm == 0 for gate in self.gates)
        if silent == len(self.gates):
            return (
                'h contributes nothing: every injection is zero, as init="identity" leaves it '
                "until the network is trained."
            )
        most = max(self.gates, key=lambda gate: gate.ratio)
        shares = sorted(gate.ratio for gate in self.gates)
        middle = shares[len(shares) // 2]
        zero = f" At {silent} of {len(self.gates)} layers it is zero." if silent else ""
        return (
            f"h's share is {_percent(middle)} of x's at the median layer and at most "
            f"{_percent(most.ratio)}, at {most.layer}.{zero}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = [{**asdict(gate), "ratio": gate.ratio} for gate in self.gates]
        return {
            "model": self.model, "source": self.source, "verdict": self.verdict, "gates": rows
        }  # fmt: skip

    def __str__(self) -> str:
        header = ("block", "h enters at", "kind", "|Conv_x(x)|", "|Conv_h(h)|", "h / x")
        rows = [
            (
                _within(gate.part, gate.block or "(network)"),
                _within(gate.part, gate.layer),
                gate.kind,
                f"{gate.x_norm:.4g}",
                f"{gate.h_norm:.4g}",
                _percent(gate.ratio),
            )
            for gate in self.gates
        ]
        heading = f"{self.model} on {self.source}"
        return "\n".join([heading, *text_table([header, *rows], right=(3, 4, 5)), self.verdict])


def _within(part: str, path: str) -> str:
    return f"{part}.{path}" if part else path


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}%" if math.isfinite(ratio) else "only h"


def measure_gates(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], source: str
) -> Gates:
    """Run a copy of the model on an input and measure both norms at each layer that h enters.

    Raises `PlanError` for a model without hidden state, or whose h enters nowhere.
    """
    parts = parts_of(model, 'show(model, what="gates")')
    seen: dict[tuple[str, str, str], list[tuple[float, int]]] = {}

    def see(path: str, key: Any, value: Tensor) -> None:
        whole = value.detach().float().flatten(1)
        norm = whole.norm(dim=1).mean().item()
        seen.setdefault((path, *key), []).append((norm, whole.shape[1]))

    run_watched(model, args, kwargs, _joins, see)
    gates = [
        _gate(path, part, name, node, seen)
        for path, part in parts.items()
        for name, (node, _) in joins(part).items()
        if (path, "h", name) in seen
    ]
    if not gates:
        raise PlanError(
            'show(model, what="gates"): h enters no layer of this network, or none that ran.'
        )
    return Gates(model=shown_name(model), source=source, gates=tuple(gates))


def joins(part: RLAModel) -> dict[str, tuple[fx.Node, fx.Node]]:
    """By the path of h's way: the nodes of x's share and of h's, which the next node adds up."""
    found: dict[str, tuple[fx.Node, fx.Node]] = {}
    for node in part.rla.splice.graph.nodes:
        if node.op != "call_function" or node.target is not operator.add or len(node.args) != 2:
            continue
        layer, share = node.args
        if not isinstance(share, fx.Node) or share.op != "call_module":
            continue
        path = str(share.target)
        if names.is_join(path) or path.startswith(f"{names.part('inject')}."):
            found[path] = (layer, share)
    return found


def _joins(part: RLAModel) -> dict[fx.Node, tuple[str, str]]:
    watched: dict[fx.Node, tuple[str, str]] = {}
    for name, (layer, share) in joins(part).items():
        watched[layer], watched[share] = ("x", name), ("h", name)
    return watched


def _gate(
    path: str,
    part: RLAModel,
    name: str,
    layer: fx.Node,
    seen: Mapping[tuple[str, str, str], list[tuple[float, int]]],
) -> Gate:
    x, h = ([norm for norm, _ in seen[path, which, name]] for which in ("x", "h"))
    index = names.block_index(name)
    way = part.get_submodule(name)
    kind: Literal["entry", "depthwise", "head"] = "entry"
    if index is None:
        kind = "head"
    elif "depthwise" in dict(way.named_children()):
        kind = "depthwise"
    block = "head" if index is None else part.rla.plan.blocks[index].path
    return Gate(
        part=path,
        block=block,
        layer=_layer(part, index, name, layer),
        kind=kind,
        x_norm=sum(x) / len(x),
        h_norm=sum(h) / len(h),
        elements=seen[path, "h", name][0][1],
    )


def _layer(part: RLAModel, index: int | None, name: str, node: fx.Node) -> str:
    """The layer that h enters, by its path; one without a module as the plan writes it."""
    if node.op == "call_module":
        return str(node.target)
    plan = part.rla.plan
    listed = plan.head if index is None else plan.blocks[index].entries
    key = name.rpartition(".")[2]  # "<head>", "<block>" or "<block>_<entry>"
    number = key if index is None else key.partition("_")[2]
    place = int(number) if number.isdigit() else 0
    return listed[place] if place < len(listed) else node.name
