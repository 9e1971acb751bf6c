"""What the ratios are to be at most, and what was reached."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.speed.cells import Cell
from benchmarks.speed.store import Results


@dataclass(frozen=True)
class Target:
    """A ratio to the plain network, batch 8, k = 32, heap kept, one thread."""

    title: str
    net: str
    mode: str
    treatment: str
    variant: str
    at_most: float

    def key(self, heap: str = "kept") -> str:
        """Of the row that has its figures."""
        fields = {"mode": self.mode, "treatment": self.treatment, "heap": heap}
        return Cell(net=self.net, k=32, batch=8, **fields).key


def _targets(name: str, net: str, *most: float) -> tuple[Target, ...]:
    eager, folded, frozen, onnx, training = most
    return (
        Target(f"{name}, eager", net, "inference", "eager", "ours", eager),
        Target(f"{name}, folded on both sides", net, "inference", "folded", "fused", folded),
        Target(f"{name}, inductor with freezing", net, "inference", "frozen", "fused", frozen),
        Target(f"{name}, onnxruntime", net, "inference", "onnx", "fused", onnx),
        Target(f"{name}, training step", net, "training", "eager", "ours", training),
    )


TARGETS = (
    *_targets("rla_resnet50", "resnet50", 1.14, 1.11, 1.10, 1.10, 1.11),
    *_targets("dsrla_mobilenetv2_k32", "mobilenet_v2", 1.28, 1.24, 1.26, 1.22, 1.22),
)


def reached(results: Results, target: Target, heap: str = "kept") -> list[float] | None:
    """Lower quartile, median and upper quartile of the ratio; None where it was not measured."""
    row = results["rows"].get(target.key(heap), {})
    variant = row.get("variants", {}).get(target.variant)
    return None if variant is None else variant["ratio"]


def met(ratio: float, target: Target) -> bool:
    """To two digits, as targets are given.

    >>> met(1.1449, TARGETS[0]), met(1.146, TARGETS[0])
    (True, False)
    """
    return round(ratio, 2) <= target.at_most
