"""Replacing the classifier together with the share that h has in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from rlawrap._torch import ConvNd
from rlawrap.design.names import ROOT, is_join
from rlawrap.design.resolve import resolve
from rlawrap.errors import ConfigError, PlanError
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced, trace_model
from rlawrap.splice.classes import bare, dress, plain_copy, tables_of
from rlawrap.splice.guards import remove_guards
from rlawrap.splice.hidden import last_layer
from rlawrap.splice.record import Splice
from rlawrap.splice.splicing import hidden_part, write


def _splice(model: nn.Module) -> Splice:
    splice: Splice = model.rla.splice  # type: ignore[union-attr, assignment]
    return splice


def replace_classifier(
    model: nn.Module, num_classes: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Give the layer that makes the logits, and what h adds to it, `num_classes` outputs.

    Where the base has a `reset_classifier`, that decides, and the network is written anew around
    what it made, with the present layers.
    """
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 0:
        raise ConfigError(
            f"reset_classifier({num_classes!r}): give a number of classes, or 0 for features."
        )
    own = getattr(_splice(model).base_class, "reset_classifier", None)
    if own is not None:
        _write_anew(model, lambda base: own(base, num_classes, *args, **kwargs))
        return
    if args or kwargs:
        name = _splice(model).base_class.__name__
        raise ConfigError(f"reset_classifier: {name} takes a number of classes alone.")
    layer, join = _find(model)
    if layer is None:
        raise PlanError(
            "reset_classifier: the network's output is not made by a linear layer or a 1x1 "
            "convolution; replace the layer in the base (rlawrap.unwrap(model)) and apply again."
        )
    if num_classes == 0:
        _write_anew(model, lambda base: _put(base, layer, nn.Identity()))
        return
    _put(model, layer, _resized(model.get_submodule(layer), num_classes))
    if join is not None:
        old = model.get_submodule(join)
        new = _resized(old, num_classes)
        if _is_zero(old):
            with torch.no_grad():
                new.weight.zero_()  # type: ignore[union-attr,operator]
        _put(model, join, new)
    if "num_classes" in vars(model):
        model.num_classes = num_classes  # type: ignore[assignment]


def _write_anew(model: nn.Module, change: Callable[[nn.Module], Any]) -> None:
    """Change the base, find its graph again, and keep every layer of h that still fits."""
    before = _splice(model)
    if before.maps is not None:
        raise PlanError("reset_classifier: a backbone has no classifier.")
    twin = plain_copy(model)
    change(twin)
    settings = before.settings
    traced = trace_model(
        twin,
        leaf_modules=settings.leaf_modules,
        example_input=settings.example_input,
        call="reset_classifier",
    )
    plan = replace(before.plan, head=_heads(traced, settings.head))
    design = resolve(traced, plan, before.config)
    with torch.random.fork_rng(devices=[]):
        rla = hidden_part(twin, traced, design)
        _keep_layers(rla, model.get_submodule(ROOT))
    cls: type[nn.Module] = write(twin, rla, traced, design, settings, _mixin(model), before.rebuild)
    rla.splice.turned = tuple(dict.fromkeys((*before.turned, *rla.splice.turned)))
    rla.splice.disabled = before.disabled
    # Nothing is changed before this line, and nothing can fail behind it.
    base = bare(model)
    change(base)
    model.__dict__.update(base.__dict__)
    remove_guards(model)
    for path in rla.splice.turned:
        model.get_submodule(path).inplace = False  # type: ignore[assignment]
    dress(model, rla, cls)
    if before.checkpointing:
        _mixin(model).set_grad_checkpointing(model)


def _mixin(model: nn.Module) -> Any:
    """What makes a rewritten network of a base's class: the first of its two parents."""
    return type(model).__bases__[0]


def _is_zero(layer: nn.Module) -> bool:
    """Whether a layer adds nothing; one on the meta device has no values yet."""
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    return weight.is_meta or not bool(weight.any())


def _keep_layers(new: nn.Module, old: nn.Module) -> None:
    """Put the present layers of h into the new tree, where they fit.

    The share of a new classifier is drawn anew where that of the old one was not zero.
    """
    for name, module in list(new.named_modules()):
        elementary = name and not any(True for _ in module.children())
        if not elementary:
            _keep_tensors(name, module, old)
        parent, _, leaf = name.rpartition(".")
        try:
            former = old.get_submodule(name) if elementary else None
        except AttributeError:
            continue
        if former is None or type(former) is not type(module):
            continue
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (former, module)]
        if shapes[0] == shapes[1]:
            setattr(new.get_submodule(parent), leaf, former)
        elif not _is_zero(former):
            module.reset_parameters()  # type: ignore[operator]


def _keep_tensors(name: str, module: nn.Module, old: nn.Module) -> None:
    """Put the present parameters and buffers of a module that holds layers as well into its twin.

    Those of elementary layers come with the layers.
    """
    try:
        former = old.get_submodule(name)
    except AttributeError:
        return
    if type(former) is type(module):
        for mine, its in zip(tables_of(module)[1:], tables_of(former)[1:], strict=True):
            fit = (n for n, t in mine.items() if n in its and its[n] is not None and t is not None)
            mine.update({n: its[n] for n in fit if its[n].shape == mine[n].shape})


def _heads(traced: Traced, heads: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the layers that h joins which are there and still are layers to join."""
    refs = References(traced.trace)
    found = {head: refs.find(head) for head in heads}
    return tuple(
        head for head, n in found.items() if n is not None and traced.flow.ops.conv(n) is not None
    )


def _find(model: nn.Module) -> tuple[str | None, str | None]:
    """Paths of the layer that makes the logits and of the last layer of h's share in it."""
    output = next(n for n in _splice(model).programs[False].graph.nodes if n.op == "output")
    node: Any = output.args[0]
    while isinstance(node, (tuple, list, dict)):
        node = next(iter(node.values() if isinstance(node, dict) else node))
    join: str | None = None
    while isinstance(node, fx.Node):
        if node.op == "call_module":
            module = model.get_submodule(str(node.target))
            if isinstance(module, (nn.Linear, ConvNd)):
                return str(node.target), join
        shares = [
            a for a in node.all_input_nodes if a.op == "call_module" and is_join(str(a.target))
        ]
        if shares:
            join = _share_of(model, str(shares[0].target))
        rest = [a for a in node.all_input_nodes if a not in shares and a.op != "get_attr"]
        if len(rest) != 1:
            break
        node = rest[0]
    return None, None


def _share_of(model: nn.Module, path: str) -> str:
    """The path of the layer at the end of a way of h."""
    last = last_layer(model.get_submodule(path))
    inner = next(n for n, m in model.get_submodule(path).named_modules() if m is last)
    return f"{path}.{inner}"


def _resized(layer: nn.Module, outputs: int) -> nn.Module:
    """A new layer like the old one, on its device and in its dtype, with other outputs."""
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    where: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        new: nn.Module = nn.Linear(layer.in_features, outputs, bias=bias, **where)
    else:
        assert isinstance(layer, ConvNd)
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


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
