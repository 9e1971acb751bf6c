"""Folding batch norms with fixed statistics into what they read: norm(z) = s z + c."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from rlawrap.fuse.families import can_scale, family_of, scale_family, shift_result
from rlawrap.fuse.layers import NORMS, affine, conv_of, is_plain, is_sum, norm_of, passes_shift
from rlawrap.fuse.work import Work


def spell_out_norms(work: Work) -> None:
    """Make norms of other kinds that are batch norms with fixed statistics into those.

    Those of timm that end in an activation become two layers, frozen ones of any library one.
    """
    for node in list(work.graph.nodes):
        layer: Any = work.layer(node)
        if layer is None or layer.training or not is_plain(layer):
            continue
        if type(layer).__name__ == "FrozenBatchNorm2d" and not hasattr(layer, "act"):
            work.replace_layer(node, _batch_norm(layer))
        elif _ends_active(layer) and layer.running_mean is not None:
            _split(work, node, layer)


def _ends_active(layer: nn.Module) -> bool:
    names = {cls.__name__ for cls in type(layer).__mro__}
    exact = type(layer).__name__ in ("BatchNormAct2d", "SyncBatchNormAct")
    return exact and "_BatchNorm" in names and hasattr(layer, "act") and hasattr(layer, "drop")


def _batch_norm(layer: Any) -> nn.BatchNorm2d:
    """A batch norm with the tensors of another."""
    norm: Any = nn.BatchNorm2d(layer.running_mean.numel(), eps=layer.eps, device="meta")
    norm.weight, norm.bias = (
        value if value is None or isinstance(value, nn.Parameter) else nn.Parameter(value, False)
        for value in (layer.weight, layer.bias)
    )
    norm.running_mean, norm.running_var = layer.running_mean, layer.running_var
    norm.num_batches_tracked = None
    made: nn.BatchNorm2d = norm.eval()
    return made


def _split(work: Work, node: fx.Node, layer: Any) -> None:
    parts = [part for part in (layer.drop, layer.act) if not isinstance(part, nn.Identity)]
    work.replace_layer(node, _batch_norm(layer))
    users = list(node.users)
    value = node
    for part in parts:
        path = work.add_layer(f"{node.target}_act", part)
        with work.graph.inserting_after(value):
            value = work.graph.call_module(path, (value,))
    for user in users:
        user.replace_input_with(node, value)


def fold_norms(work: Work) -> None:
    """Fold each norm whose scale the makers of its input can take, and the readers give back."""
    for node in list(work.graph.nodes):
        layer = work.layer(node)
        norm = norm_of(layer)
        if norm is None:
            if isinstance(layer, NORMS):
                work.note("norm", node, "it has hooks, or takes its statistics from the batch")
            continue
        scale, shift = affine(norm)
        source = node.all_input_nodes[0]
        bearer = shift_bearer(work, source, node)
        family = family_of(work, source, node)
        problem = can_scale(family, scale)
        if not problem and bearer is None and bool(shift.any()):
            problem = "nothing that it alone reads can take its shift"
        if problem:
            work.note("norm", node, problem)
            continue
        scale_family(work, family, scale)
        if bearer is not None:
            shift_result(work.layer(bearer), shift)
        work.note("norm folded", node)
        work.skip(node)


def shift_bearer(work: Work, node: fx.Node, reader: fx.Node) -> fx.Node | None:
    """A convolution or norm whose result reaches `reader` alone, and there as it is.

    What is added to its channels is added to what `reader` reads of `node`.
    """
    if set(node.users) != {reader}:
        return None
    layer = work.layer(node)
    if conv_of(layer) is not None or norm_of(layer) is not None:
        return node
    if passes_shift(layer) or (is_sum(node) and len(node.all_input_nodes) == 2):
        found = (shift_bearer(work, source, node) for source in node.all_input_nodes)
        return next((bearer for bearer in found if bearer is not None), None)
    return None
