"""Owners that hold the block instead of being it (the way up of a UNet), and what is no block."""

from __future__ import annotations

from collections import Counter

from torch import fx

from rlawrap.discover.owners import OwnerRules, inside


def convolving_parts(
    rules: OwnerRules, paths: dict[str, list[fx.Node]]
) -> dict[str, list[fx.Node]]:
    """The convolving modules in `paths`, if each holds one, all are of one class, and this class
    convolves outside of them as well; else nothing.

    An owner that adds, that convolves in layers of its own, or that gets images of one size (a
    dense layer) is a block itself.
    """
    found: dict[str, list[fx.Node]] = {}
    for path, joins in paths.items():
        if any(rules.flow.ops.add_operands(n) is not None for n in joins):
            return {}
        part = _only_part(rules, path)
        if part is None or not _gathers_sizes(rules, path):
            return {}
        found[part] = []
    classes = {rules.type_of(p) for p in found}
    if len(classes) != 1:
        return {}
    called = dict.fromkeys(p for p, _ in rules.trace.calls if p in rules.conv_paths)
    outside = [p for p in called if not any(p == q or inside(p, q) for q in paths)]
    return found if any(rules.type_of(p) in classes for p in outside) else {}


def _gathers_sizes(rules: OwnerRules, path: str) -> bool:
    """Whether a module gets images of several sizes."""
    flow = rules.flow
    nodes = rules.nodes_of(path)
    outside = {s for n in nodes for s in flow.sources[n]} - set(nodes)
    return len({flow.spatial(s) for s in outside if flow.is_image(s)}) > 1


def _only_part(rules: OwnerRules, path: str) -> str | None:
    """The module below `path` in which all of its convolutions run; a transposed one may be apart.

    Of several, one in another, the outermost that is no container.
    """
    flow = rules.flow
    kinds = {n: c for n in rules.nodes_of(path) if (c := flow.ops.conv(n)) is not None}
    common: list[str] | None = None
    for node, conv in kinds.items():
        if conv.transposed:
            continue
        held = [p for p, _ in rules.trace.stacks[node] if inside(p, path)]
        held = [p for p in held if not rules.is_container(p)]
        common = held if common is None else [p for p in common if p in held]
    return common[0] if common else None


def passed_over(rules: OwnerRules, known: list[str]) -> list[str]:
    """Modules of several convolutions whose class repeats, apart from all `known` paths."""
    flow = rules.flow
    alive = flow.above[flow.main_output]
    paths = []
    for path in dict.fromkeys(p for p, _ in rules.trace.calls if p in rules.conv_paths):
        if not path or rules.is_container(path):
            continue
        if any(path == k or inside(path, k) or inside(k, path) for k in known):
            continue
        nodes = [n for n in rules.nodes_of(path) if alive >> flow.position[n] & 1]
        convs = [c for n in nodes if flow.is_image(n) and (c := flow.ops.conv(n)) is not None]
        if len(convs) > 1 and any(c.spatial_kernel for c in convs):
            paths.append(path)
    count = Counter(rules.type_of(p) for p in paths)
    paths = [p for p in paths if count[rules.type_of(p)] > 1]
    return [p for p in paths if not any(inside(p, q) for q in paths)]
