"""Tables of Markdown from the results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.speed.cells import BATCHES, KS, NETS, Cell
from benchmarks.speed.profiled import shares
from benchmarks.speed.store import Results
from benchmarks.speed.targets import TARGETS, met, reached

TITLES = {
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "mobilenet_v2": "MobileNetV2",
    "convnext_tiny": "ConvNeXt-T",
    "efficientnet_b0": "EfficientNet-B0",
}
NONE = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; the first column is left-aligned, the others are figures.

    >>> print(table(["net", "ms"], [["a", "1.0"]]))
    | net | ms |
    | --- | ---: |
    | a | 1.0 |
    """
    rows = list(rows)
    if not rows:
        return "Not measured."
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _found(results: Results, variant: str, **fields: Any) -> dict[str, Any] | None:
    row = results["rows"].get(Cell(**fields).key, {})
    return row.get("variants", {}).get(variant)


def ratio(found: dict[str, Any] | None, spread: bool = False) -> str:
    """A ratio, with its quartiles or without.

    >>> ratio({"ratio": [1.09, 1.104, 1.12]}, spread=True), ratio(None)
    ('1.104 (1.090 to 1.120)', '–')
    """
    if found is None:
        return NONE
    value = found["ratio"]
    if not isinstance(value, list):
        return f"{value:.3f}"
    low, median, high = value
    return f"{median:.3f}" + (f" ({low:.3f} to {high:.3f})" if spread else "")


def milliseconds(found: dict[str, Any] | None) -> str:
    """The median; three digits.

    >>> milliseconds({"ms": [1, 12.34, 3]}), milliseconds({"ms": [1, 1234.5, 3]})
    ('12.3', '1234')
    """
    if found is None:
        return NONE
    return f"{found['ms'][1]:.{0 if found['ms'][1] >= 100 else 1}f}"


def targets(results: Results) -> str:
    """Every target beside what was reached."""
    rows = []
    for target in TARGETS:
        row = results["rows"].get(target.key(), {})
        variants = row.get("variants", {})
        own = reached(results, target)
        usual = reached(results, target, "usual")
        rows.append(
            [
                target.title,
                f"{milliseconds(variants.get('base'))} / "
                f"{milliseconds(variants.get(target.variant))}",
                ratio(variants.get("concat")),
                f"{target.at_most:.2f}",
                ratio(variants.get(target.variant), spread=True),
                NONE if usual is None else f"{usual[1]:.3f}",
                NONE if own is None else "yes" if met(own[1], target) else "no",
            ]
        )
    head = "batch 8, k = 32|ms, plain / ours|concatenation|at most|reached|heap as usual|met"
    return table(head.split("|"), rows)


def misses(results: Results) -> str:
    """The targets that were not reached, as a list."""
    lines = []
    for target in TARGETS:
        own = reached(results, target)
        if own is None:
            lines.append(f"- {target.title}: not measured.")
        elif not met(own[1], target):
            lines.append(f"- {target.title}: {own[1]:.3f}, {target.at_most:.2f} was the target.")
    return "\n".join(lines) or "Every target was reached."


def matrix(results: Results) -> str:
    """Eager, folded and training of every network, k and batch."""
    rows = []
    for net in NETS_IN_ORDER:
        for batch in sorted(BATCHES):
            for k in KS:
                at = {"net": net, "k": k, "batch": batch}
                eager = Cell(**at, mode="inference", treatment="eager")
                macs = results["rows"].get(eager.key, {}).get("macs_ratio")
                rows.append(
                    [
                        f"{TITLES[net]}, batch {batch}, k = {k}",
                        NONE if macs is None else f"{macs:.3f}",
                        *(
                            ratio(_found(results, variant, **at, mode=mode, treatment=treatment))
                            for mode, treatment, variant in (
                                ("inference", "eager", "ours"),
                                ("inference", "eager", "concat"),
                                ("inference", "folded", "fused"),
                                ("training", "eager", "ours"),
                                ("training", "eager", "concat"),
                            )
                        ),
                    ]
                )
    head = "network|MACs|eager|concatenation|folded|training|its concatenation"
    return table(head.split("|"), [row for row in rows if set(row[1:]) != {NONE}])


NETS_IN_ORDER = sorted(NETS, key=list(TITLES).index)


def treatments(results: Results) -> str:
    """What compilers and onnxruntime make of both sides, batch 8 and k = 32."""
    rows = []
    for net in NETS_IN_ORDER:
        for treatment, title in (
            ("compiled", "inductor"),
            ("frozen", "inductor with freezing"),
            ("onnx", "onnxruntime"),
        ):
            at = {"net": net, "k": 32, "batch": 8, "mode": "inference", "treatment": treatment}
            base, ours, fused = (_found(results, v, **at) for v in ("base", "ours", "fused"))
            figures = [milliseconds(base), ratio(ours, spread=True), ratio(fused, spread=True)]
            if set(figures) != {NONE}:
                rows.append([f"{TITLES[net]}, {title}", *figures])
    return table(["batch 8, k = 32", "plain, ms", "ours", "ours, fused"], rows)


def memory(results: Results) -> str:
    """Peak memory beside the arithmetic."""
    rows = []
    for net in NETS_IN_ORDER:
        for mode in ("training", "inference"):
            at = {"net": net, "k": 32, "batch": 8}
            found = {
                v: _found(results, v, **at, mode=mode, treatment="memory", heap="mapped")
                for v in ("base", "ours", "concat")
            }
            if found["base"] is None:
                continue
            eager = Cell(**at, mode="inference", treatment="eager").key
            macs = results["rows"].get(eager, {}).get("macs_ratio")
            rows.append(
                [
                    f"{TITLES[net]}, {mode}",
                    f"{found['base']['mib']:.0f}",
                    NONE if macs is None else f"{macs:.3f}",
                    ratio(found["ours"]),
                    ratio(found["concat"]),
                ]
            )
    head = ["batch 8, k = 32", "plain, MiB", "MACs", "ours", "concatenation"]
    return table(head, rows)


def profiles(results: Results) -> str:
    """Where the time goes, one table a profiled cell."""
    parts = []
    for key, profile in results["profiles"].items():
        plain, ours = profile.values()
        found = [s for s in shares(plain, ours) if max(s.plain, s.base, s.rla) >= 0.05]
        rows = [[s.kind, f"{s.plain:.1f}", f"{s.base:.1f}", f"{s.rla:.1f}"] for s in found]
        sums = [sum(getattr(s, f) for s in found) for f in ("plain", "base", "rla")]
        rows.append(["all", *(f"{value:.1f}" for value in sums)])
        head = ["ms a run", "plain network", "ours: base", "ours: RLA"]
        parts.append(f"**{key}**\n\n{table(head, rows)}")
    return "\n\n".join(parts) or "Not measured."


def failures(results: Results) -> str:
    """Cells and variants without a figure, and the error that stopped each."""
    lines = []
    for key, row in results["rows"].items():
        if "error" in row:
            lines.append(f"- {key}: `{row['error']}`")
        lines += [f"- {key}, {name}: `{why}`" for name, why in row.get("failed", {}).items()]
    return "\n".join(lines) or "None."


def machine(results: Results) -> str:
    """The machine and the versions."""
    rows = results["rows"].values()
    lines = [f"- {name}: {value}" for name, value in results["machine"].items()]
    threads = sorted({str(row["threads"]) for row in rows if "threads" in row})
    lines.append(f"- threads: {', '.join(threads) or NONE}")
    for title, target in (("targets", True), ("other cells", False)):
        loads = [row["load"] for row in rows if "load" in row and row["target"] is target]
        if loads:
            middle = sorted(loads)[len(loads) // 2]
            words = f"{middle:.1f}, at most {max(loads):.1f}"
            lines.append(f"- load average when a cell began, {title}: {words}")
    return "\n".join(lines)
