"""Blocks that stay whole because tracing cannot follow them: h reads them and cannot enter."""

from __future__ import annotations

from collections import defaultdict

from torch import fx, nn

from rlawrap.discover.owners import OwnerRules, inside


def whole_blocks(
    rules: OwnerRules, taken: list[str], left_out: dict[str, str], *, asked: bool
) -> dict[str, list[fx.Node]]:
    """Convolving modules that were kept whole and whose class repeats, with no joins to be seen.

    `asked` takes those of `leaf_modules=` alone; what of them is no block goes to `left_out`.
    Beside other blocks (`taken`) a class that changes the shape of every image it gets is a
    transition.
    """
    classes: dict[type, list[fx.Node]] = defaultdict(list)
    for node, (path, _) in rules.trace.leaf_frames.items():
        apart = not any(path == t or inside(path, t) or inside(t, path) for t in taken)
        if apart and _convolves(rules, node) and (not asked or _asked(rules, path)):
            classes[rules.type_of(path)].append(node)
    found: dict[str, list[fx.Node]] = {}
    for cls, nodes in classes.items():
        paths = list(dict.fromkeys(str(n.target) for n in nodes))
        if len(nodes) > 1 and (not taken or any(_keeps_shape(rules, n) for n in nodes)):
            found.update({p: [] for p in paths})
        elif asked:
            why = f"the only {cls.__name__}" if len(nodes) == 1 else "changes the shape each time"
            left_out.update(dict.fromkeys(paths, f"kept whole, and no block: {why}"))
    return found


def _asked(rules: OwnerRules, path: str) -> bool:
    leaves = rules.trace.user_leaves
    classes = tuple(leaf for leaf in leaves if isinstance(leaf, type))
    return path in leaves or isinstance(rules.modules[path], classes)


def _convolves(rules: OwnerRules, node: fx.Node) -> bool:
    """A leaf on the way to the output that returns an image and holds convolutions."""
    flow = rules.flow
    alive = node in flow.data and flow.above[flow.main_output] >> flow.position[node] & 1
    if not alive or not flow.is_image(node) or flow.ops.conv(node) is not None:
        return False
    inner = rules.modules[str(node.target)].modules()
    return any(isinstance(m, (nn.modules.conv._ConvNd, nn.Linear)) for m in inner)


def _keeps_shape(rules: OwnerRules, node: fx.Node) -> bool:
    shapes = rules.flow.shapes
    return any(shapes.of(s) == shapes.of(node) for s in rules.flow.sources[node])
