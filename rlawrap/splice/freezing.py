"""`freeze_base`: only the hidden state learns; the base's weights and statistics stay."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import fx, nn

from rlawrap.design.heads import lies_in
from rlawrap.errors import ConfigError, PlanError, few, spelled
from rlawrap.splice.access import rewritten
from rlawrap.splice.classifier import classifiers
from rlawrap.splice.frozen import Frozen, keep_still, still_norms, thaw
from rlawrap.splice.model import RLAModel

Model = TypeVar("Model", bound=nn.Module)

#: Norms as functions, with where each takes its running mean; the mode is the sixth argument.
_FUNCTIONS: dict[Any, int] = {
    F.batch_norm: 1,
    F.instance_norm: 1,
    torch.batch_norm: 3,
    torch.instance_norm: 3,
}
_MODE = 5


def freeze_base(model: Model, *, head: bool | str | Sequence[str] = False) -> Model:
    """Let only what `apply` added learn; returns `model`, which is changed in place.

    The base's parameters no longer require gradients, and its norms compute with their running
    statistics and leave them alone, in train mode too, through every later `train()`; the estimates
    of its spectral norms stay, too. The norms of h learn as before. The base's dropout and
    stochastic depth follow the mode as ever: they are no knowledge to be kept.

    head: what of the base learns on. False: nothing; True: the layers that make the outputs (those
    that `reset_classifier` replaces); or paths of modules, as "fc". A classifier that
    `reset_classifier` has made anew has to learn: `head=True`.

    Copies, pickles, `rlawrap.backbone` and checkpoints of a state dict into the same model keep it;
    a file of `rlawrap.save` does not. `unwrap` gives the base as it was before. A model that holds
    rewritten networks in its parts will do: the base of each is frozen, and nothing around them.
    Freeze before DDP or an optimiser takes the parameters. Frozen again, the last call counts.

    Raises `PlanError` for a model without hidden state and for norms that cannot be kept still,
    `ConfigError` for a `head` that is not there; nothing is changed then.

    >>> import rlawrap, torchvision
    >>> model = rlawrap.freeze_base(rlawrap.apply(torchvision.models.resnet18(), k=8), head="fc")
    >>> sorted({name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad})
    ['fc', 'rla']
    >>> model.train().bn1.training, model.rla.head.norm.training
    (False, True)
    """
    networks = rewritten(model, "freeze_base(model)")
    plans = [_freezing(network, head) for network in networks]
    for network, frozen in zip(networks, plans, strict=True):
        _thawed(network)
        parameters = dict(network.named_parameters())
        for name in frozen.parameters:
            parameters[name].requires_grad_(False)
        network.rla.splice.frozen = frozen
        keep_still(network)
    return model


def unfreeze_base(model: Model) -> Model:
    """Undo `freeze_base`; returns `model`.

    What it froze requires gradients again; what was frozen before it stays so. The norms take the
    mode of the network.

    >>> import rlawrap, torchvision
    >>> model = rlawrap.freeze_base(rlawrap.apply(torchvision.models.resnet18(), k=8))
    >>> all(p.requires_grad for p in rlawrap.unfreeze_base(model).parameters())
    True
    """
    for network in rewritten(model, "unfreeze_base(model)"):
        _thawed(network)
    return model


def _thawed(network: RLAModel) -> None:
    splice = network.rla.splice
    frozen, splice.frozen = splice.frozen, None
    if frozen is not None:
        thaw(network, frozen, splice.base_class)
        keep_still(network)


def _freezing(network: RLAModel, head: Any) -> Frozen:
    """What is to be frozen of one network. Raises what `freeze_base` raises."""
    learning = _learning(network, head)
    _check_norms(network, learning)
    kept = {id(p) for path in (*learning, "rla") for p in network.get_submodule(path).parameters()}
    before = network.rla.splice.frozen
    frozen = () if before is None else before.parameters
    names = tuple(
        name
        for name, parameter in network.named_parameters()
        if id(parameter) not in kept and (parameter.requires_grad or name in frozen)
    )
    return Frozen(names, learning)


def _learning(network: RLAModel, head: Any) -> tuple[str, ...]:
    """Paths of the base's parts that learn on."""
    name = network.rla.splice.base_class.__name__
    if head is False:
        return ()
    if head is True:
        layers = () if network.rla.splice.maps is not None else tuple(classifiers(network))
        if not layers:
            raise ConfigError(
                f"freeze_base(head=True): no linear layer or 1x1 convolution of {name} makes an "
                f"output. Name what is to learn, one or several of {_tops(network)}."
            )
        return layers
    paths = (head,) if isinstance(head, str) else head
    if not isinstance(paths, Sequence) or not all(isinstance(path, str) for path in paths):
        raise ConfigError(f"freeze_base(head={head!r}): give True, False, or paths of modules.")
    known = {path for path, _ in network.named_modules() if path}
    for path in paths:
        if path not in known:
            near = difflib.get_close_matches(path, known, n=3)
            hint = f" Near it: {', '.join(near)}." if near else f" It has {_tops(network)}."
            raise ConfigError(f"freeze_base(head={path!r}): {name} has no such module.{hint}")
    return tuple(paths)


def _tops(network: nn.Module) -> str:
    return few([name for name, _ in network.named_children() if name != "rla"])


def _check_norms(network: RLAModel, learning: tuple[str, ...]) -> None:
    """Raise `PlanError` for a norm that the train graph would go on moving.

    A graph that serves both modes reads the mode of each module as it runs. Where train mode has a
    graph of its own, what a module's forward did by its mode is part of it.
    """
    splice = network.rla.splice
    norms = still_norms(network, learning)
    asked = splice.watch.modes.get(True, {})
    for path, norm in norms.items():
        if asked.get(path):
            kind = type(norm).__name__
            again = (
                "model = rlawrap.apply(rlawrap.unwrap(model), config=model.rla.config, "
                f"leaf_modules=[type({spelled(path, network)})])"
            )
            raise PlanError(
                f"freeze_base(model): what the norm {path!r} ({kind}) does by its mode was traced "
                f"in train mode, so its statistics would go on moving. Kept whole it can be frozen "
                f"(what h has learnt is lost): `{again}`."
            )
    for node, owner in _moving(splice.programs[True].graph, norms):
        if not any(lies_in(owner, path) for path in learning):
            where = f"the module {owner!r}" if owner else "the network's own forward"
            raise PlanError(
                f"freeze_base(model): {where} normalises with statistics that it holds itself "
                f"({node.name}) and that train mode moves. Move them into a norm of their own "
                "(nn.BatchNorm2d) in the base, and apply again."
            )


def _moving(graph: fx.Graph, norms: Container[str]) -> Iterator[tuple[fx.Node, str]]:
    """Norms as functions that would go on moving statistics, and the modules that hold these.

    Those do not that read the mode of one of `norms`.
    """
    for node in graph.nodes:
        place = _FUNCTIONS.get(node.target) if node.op == "call_function" else None
        if place is None:
            continue
        mean = _argument(node, place, "running_mean")
        mode = _argument(node, _MODE, "training", "use_input_stats")
        if not isinstance(mean, fx.Node) or mean.op != "get_attr" or mode is False:
            continue
        if not isinstance(mode, fx.Node) or _holder(mode) not in norms:
            yield node, _holder(mean)


def _holder(node: fx.Node) -> str:
    """The path of the module whose attribute a node is."""
    return str(node.target).rpartition(".")[0]


def _argument(node: fx.Node, place: int, *names: str) -> Any:
    if len(node.args) > place:
        return node.args[place]
    return next((node.kwargs[name] for name in names if name in node.kwargs), None)
