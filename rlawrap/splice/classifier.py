"""Replacing the classifier together with the share that h has in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from rlawrap.errors import ConfigError, PlanError

if TYPE_CHECKING:
    from rlawrap.splice.model import RLAModel


def replace_classifier(model: RLAModel, num_classes: int) -> None:
    """Give the layer that makes the logits, and what h adds to it, `num_classes` outputs."""
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ConfigError(
            f"reset_classifier({num_classes!r}): give a number of classes of at least 1."
        )
    layer, join = _find(model)
    if layer is None:
        raise PlanError(
            "reset_classifier: the network's output is not made by a linear layer or a 1x1 "
            "convolution; replace the layer in the base and apply again."
        )
    _put(model, layer, _resized(model.get_submodule(layer), num_classes))
    if join is not None:
        old = model.get_submodule(join)
        new = _resized(old, num_classes)
        if not bool(old.weight.any()):  # type: ignore[union-attr,operator]
            with torch.no_grad():
                new.weight.zero_()  # type: ignore[union-attr,operator]
        _put(model, join, new)
    for owner in (model.__dict__, model.__dict__["_base"].__dict__):
        if "num_classes" in owner:
            owner["num_classes"] = num_classes


def _find(model: RLAModel) -> tuple[str | None, str | None]:
    """Paths of the layer that makes the logits and of the last layer of h's share in it."""
    output = next(n for n in model._graph.nodes if n.op == "output")
    node: Any = output.args[0]
    while isinstance(node, (tuple, list, dict)):
        node = next(iter(node.values() if isinstance(node, dict) else node))
    join: str | None = None
    while isinstance(node, fx.Node):
        if node.op == "call_module":
            module = model.get_submodule(str(node.target))
            if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
                return str(node.target), join
        shares = [
            a
            for a in node.all_input_nodes
            if a.op == "call_module" and str(a.target).startswith("rla.head.join.")
        ]
        if shares:
            join = _last_layer(model, str(shares[0].target))
        rest = [a for a in node.all_input_nodes if a not in shares and a.op != "get_attr"]
        if len(rest) != 1:
            break
        node = rest[0]
    return None, None


def _last_layer(model: RLAModel, path: str) -> str:
    layers = [
        name
        for name, module in model.get_submodule(path).named_modules()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    ]
    return f"{path}.{layers[-1]}"


def _resized(layer: nn.Module, outputs: int) -> nn.Module:
    """A new layer like the old one, on its device and in its dtype, with other outputs."""
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    where: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        new: nn.Module = nn.Linear(layer.in_features, outputs, bias=bias, **where)
    else:
        assert isinstance(layer, nn.modules.conv._ConvNd)
        cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(layer.kernel_size) - 1]
        new = cls(
            layer.in_channels,
            outputs,
            layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            bias=bias,
            **where,
        )
    return new.train(layer.training)


def _put(model: RLAModel, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
