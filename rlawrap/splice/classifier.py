"""Replacing the classifier together with the share that h has in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from rlawrap._torch import ConvNd
from rlawrap.capture.bound import bound_methods, put_into_class
from rlawrap.design.heads import lies_in
from rlawrap.design.names import ROOT, is_join
from rlawrap.design.resolve import resolve
from rlawrap.errors import ConfigError, PlanError, few
from rlawrap.flow.dataflow import returned
from rlawrap.flow.references import References
from rlawrap.flow.traced import Traced
from rlawrap.splice.classes import bare, dress, plain_copy, tables_of
from rlawrap.splice.following import check_following
from rlawrap.splice.guards import remove_guards
from rlawrap.splice.hidden import last_layer
from rlawrap.splice.record import Splice
from rlawrap.splice.resized import check_resized, resized
from rlawrap.splice.splicing import hidden_part, trace_again, write
from rlawrap.walks import first_hits

#: Paths of layers, with the paths of the layers of h whose results are added to theirs.
Layers = dict[str, list[str]]


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
    named = kwargs.pop("head", None)
    if args or kwargs:
        name = _splice(model).base_class.__name__
        raise ConfigError(f"reset_classifier: {name} takes a number of classes, and head=, alone.")
    layers = _named(classifiers(model), named, num_classes)
    _check_last(model, layers)
    check_following(model, layers)
    if num_classes == 0:
        _write_anew(model, lambda base: _remove(base, layers))
        return
    for layer in layers:
        check_resized(layer, model.get_submodule(layer), num_classes)
    for layer, shares in layers.items():
        _put(model, layer, resized(model.get_submodule(layer), num_classes))
        for share in shares:
            old = model.get_submodule(share)
            new = resized(old, num_classes)
            if _is_zero(old):
                with torch.no_grad():
                    new.weight.zero_()  # type: ignore[union-attr,operator]
            _put(model, share, new)
    if "num_classes" in vars(model):
        model.num_classes = num_classes  # type: ignore[assignment]


def _named(layers: Layers, named: Any, num_classes: int) -> Layers:
    """Of the layers that make outputs those that `head=` names, or the only one."""
    if not layers:
        raise PlanError(
            "reset_classifier: what makes the network's output is not one linear layer or "
            "convolution; replace it in the base (rlawrap.unwrap(model)) and apply again."
        )
    paths = (named,) if isinstance(named, str) else tuple(named or layers)
    for path in paths:
        if not any(lies_in(layer, path) for layer in layers):
            raise ConfigError(
                f"reset_classifier: head={path!r} makes no output; {few([*layers])} do."
            )
    if named is None and len(layers) > 1:
        raise PlanError(
            f"reset_classifier: {few([*layers])} make an output each; say which has the classes: "
            f"model.reset_classifier({num_classes}, head={next(iter(layers))!r}), or a tuple of "
            "several."
        )
    return {n: s for n, s in layers.items() if any(lies_in(n, path) for path in paths)}


def _write_anew(model: nn.Module, change: Callable[[nn.Module], Any]) -> None:
    """Change the base, find its graph again, and keep every layer of h that still fits."""
    before = _splice(model)
    if before.maps is not None:
        raise PlanError("reset_classifier: a backbone has no classifier.")
    twin = plain_copy(model)
    change(twin)
    settings = before.settings
    traced = trace_again(twin, settings, "reset_classifier")
    plan = replace(before.plan, head=_heads(traced, settings.head))
    config = before.config
    if settings.named:
        there = tuple(p for p in settings.named if any(lies_in(h, p) for h in plan.head))
        config = replace(config, head=there or "none")
    design = resolve(traced, plan, config)
    put_into_class(twin, bound_methods(twin))
    with torch.random.fork_rng(devices=[]):
        rla = hidden_part(twin, traced, design)
        _keep_layers(rla, model.get_submodule(ROOT))
    cls: type[nn.Module] = write(twin, rla, traced, design, settings, _mixin(model), before.rebuild)
    rla.splice.turned = tuple(dict.fromkeys((*before.turned, *rla.splice.turned)))
    rla.splice.disabled, rla.splice.frozen = before.disabled, before.frozen
    # Nothing is changed before this line, and nothing can fail behind it.
    base = bare(model)
    change(base)
    put_into_class(base, bound_methods(base))
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


def classifiers(model: nn.Module) -> Layers:
    """Paths of the layers that make outputs, with those of the last layers of h's shares in each.

    A layer that is called for several outputs has a share in each.
    """
    found: Layers = {}
    graph = _splice(model).programs[False].graph
    for node in returned(next(n for n in graph.nodes if n.op == "output")):
        layer, shares = _find(model, node)
        if layer is not None:
            known = found.setdefault(layer, [])
            known += [share for share in shares if share not in known]
    return found


def _find(model: nn.Module, output: fx.Node) -> tuple[str | None, list[str]]:
    """Paths of the layer that makes an output and of the last layers of h's share in it."""
    node = output
    joins: list[str] = []
    while True:
        if node.op == "call_module":
            module = model.get_submodule(str(node.target))
            if isinstance(module, (nn.Linear, ConvNd)):
                return str(node.target), joins
        shares = [
            a for a in node.all_input_nodes if a.op == "call_module" and is_join(str(a.target))
        ]
        if shares:
            joins = [_share_of(model, str(shares[0].target))]
        rest = [
            a
            for a in node.all_input_nodes
            if a not in shares and a.op != "get_attr" and not _is_size(a)
        ]
        if len(rest) != 1:
            return None, []
        node = rest[0]


def _is_size(node: fx.Node) -> bool:
    """Whether a node is a size of a tensor, or is computed from sizes alone."""
    if node.target in (getattr, "size"):
        return node.target == "size" or node.args[1:] == ("shape",)
    read = node.all_input_nodes
    return node.op == "call_function" and bool(read) and all(map(_is_size, read))


def _share_of(model: nn.Module, path: str) -> str:
    """The path of the layer at the end of a way of h."""
    last = last_layer(model.get_submodule(path))
    inner = next(n for n, m in model.get_submodule(path).named_modules() if m is last)
    return f"{path}.{inner}"


def _check_last(model: nn.Module, layers: Layers) -> None:
    """Raises `PlanError` where another layer reads what one of `layers` makes."""

    def learns(node: fx.Node) -> bool:
        return node.op == "call_module" and any(
            True for _ in model.get_submodule(str(node.target)).parameters()
        )

    graph = _splice(model).programs[False].graph
    for node in graph.nodes:
        if node.op != "call_module" or node.target not in layers:
            continue
        readers = first_hits(node.users, lambda n: n.users, learns)
        if readers:
            raise PlanError(
                f"reset_classifier: {readers[0].target} reads what {node.target} makes; replace "
                "both in the base (rlawrap.unwrap(model)) and apply again."
            )


def _remove(base: nn.Module, paths: Iterable[str]) -> None:
    for path in paths:
        _put(base, path, nn.Identity())


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
