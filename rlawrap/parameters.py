"""The parameters of a network: those of h, and all in groups for an optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from rlawrap.errors import ConfigError, PlanError
from rlawrap.plan import Block
from rlawrap.splice import RLAModel, inspect
from rlawrap.splice.access import rewritten
from rlawrap.splice.inside import added_in, rewritten_in


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters, by name, that share a learning rate (as a multiple) and a weight decay.

    added: whether they are those of h, where these are apart from the others.
    """

    names: tuple[str, ...]
    lr_scale: float
    weight_decay: float
    added: bool = False


def rla_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that `apply` added, in order, as `nn.Module.parameters` gives all of them.

    `model` may be rewritten itself or hold rewritten networks in its parts, as a detector does.
    Raises `PlanError` for a model without hidden state.

    >>> import rlawrap, torchvision
    >>> model = rlawrap.apply(torchvision.models.resnet18(), k=32)
    >>> sum(parameter.numel() for parameter in rlawrap.rla_parameters(model))
    634688
    """
    return (parameter for _, parameter in _added(model, "rla_parameters(model)"))


def named_rla_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """`rla_parameters` with their names in `model`, as `nn.Module.named_parameters` gives all.

    >>> import rlawrap, torchvision
    >>> model = rlawrap.apply(torchvision.models.resnet18(), k=8)
    >>> next(rlawrap.named_rla_parameters(model))[0]
    'rla.input.0_64.weight'
    """
    return iter(_added(model, "named_rla_parameters(model)"))


def _added(model: nn.Module, call: str) -> list[tuple[str, nn.Parameter]]:
    """The parameters of h with their names, each once."""
    rewritten(model, call)
    is_added = added_in(model)
    return [(name, parameter) for name, parameter in model.named_parameters() if is_added(name)]


def param_groups(
    model: nn.Module,
    *,
    lr: float,
    rla_lr: float | None = None,
    weight_decay: float = 0.0,
    no_decay: bool = True,
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters of a network in groups that any `torch.optim` optimiser takes.

    Frozen ones are left out, and what several modules share is there once.

    lr: the learning rate. rla_lr: that of the `rla.` parameters, which `apply` added; None: lr.
    no_decay: parameters of one dimension or none (biases, the scale of a norm) do not decay.
    layer_decay: the rate of each block is that of the block behind it times this much; the
    classifier has the full rate, and so have `rla.` parameters, which start untrained, and what a
    model that holds a rewritten network has around it.

    Raises `ConfigError` when nothing is left to train, `PlanError` for `layer_decay` on a network
    in which no blocks are found.

    >>> import rlawrap, torch, torchvision
    >>> model = rlawrap.apply(torchvision.models.resnet18(), k=4)
    >>> groups = param_groups(model, lr=0.1, rla_lr=1.0, weight_decay=1e-4)
    >>> [(group["lr"], group["weight_decay"], len(group["params"])) for group in groups]
    [(0.1, 0.0001, 21), (0.1, 0.0, 41), (1.0, 0.0001, 16), (1.0, 0.0, 18)]
    >>> optimizer = torch.optim.AdamW(groups)
    """
    found = group_parameters(
        model,
        apart=rla_lr is not None and rla_lr != lr,
        weight_decay=weight_decay,
        no_decay=no_decay,
        layer_decay=layer_decay,
    )
    parameters = dict(model.named_parameters())
    return [
        {
            "params": [parameters[name] for name in group.names],
            "lr": rla_lr if group.added else lr * group.lr_scale,
            "weight_decay": group.weight_decay,
        }
        for group in found
    ]


def group_parameters(
    model: nn.Module,
    *,
    apart: bool = False,
    rla_scale: float = 1.0,
    weight_decay: float = 0.0,
    no_decay: bool = True,
    layer_decay: float | None = None,
) -> list[Group]:
    """The groups of `param_groups` by name, in order of their first parameter.

    apart: keep the `rla.` parameters in groups of their own. rla_scale: their learning rate, as a
    multiple of that of the others.
    """
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise ConfigError(f"layer_decay={layer_decay}: give a factor above 0 and up to 1.")
    behind = {} if layer_decay in (None, 1) else _blocks_behind(model)
    is_added = added_in(model)
    groups: dict[tuple[float, float, bool], list[str]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        ours = is_added(name)
        scale = rla_scale if ours else (layer_decay or 1.0) ** behind.get(name, 0)
        decay = 0.0 if no_decay and parameter.ndim < 2 else weight_decay
        groups.setdefault((scale, decay, apart and ours), []).append(name)
    if not groups:
        raise ConfigError("all parameters are frozen: no parameter to train is left. Freeze less.")
    return [
        Group(names=tuple(names), lr_scale=scale, weight_decay=decay, added=ours)
        for (scale, decay, ours), names in groups.items()
    ]


def _blocks_behind(model: nn.Module) -> dict[str, int]:
    """How many blocks lie between each parameter and the full rate; what is missing has it."""
    found: dict[str, int] = {}
    inner = [(path, network) for path, network in rewritten_in(model).items() if path]
    for path, network in inner:
        full = len(network.rla.plan.blocks) + 1  # the classifier's depth, or that of what is around
        depths = layer_depths(network)
        found.update({f"{path}.{name}": full - depth for name, depth in depths.items()})
    if not inner:
        depths = layer_depths(model)
        last = max(depths.values(), default=0)
        found = {name: last - depth for name, depth in depths.items()}
    return found


def layer_depths(model: nn.Module) -> dict[str, int]:
    """How deep each parameter of the network lies: 0 the stem, then one more for each block.

    The classifier and what is registered behind the last block come last. What lies between two
    blocks (the halving of a stage) goes with the block registered before it. `rla.` parameters
    have no depth. Raises `PlanError` when no blocks are found.

    >>> import torchvision
    >>> depths = layer_depths(torchvision.models.resnet18())
    >>> [depths[name] for name in ("bn1.bias", "layer1.0.conv1.weight", "fc.bias")]
    [0, 1, 9]
    """
    try:
        plan: Any = model.rla.plan if isinstance(model, RLAModel) else inspect(model)
    except PlanError as error:
        raise PlanError(f"layer_decay: it takes blocks to count, and {error}") from error
    owners = {
        path: depth for depth, block in enumerate(plan.blocks, 1) for path in _modules_of(block)
    }
    heads = [_module_of(reference) for reference in plan.head]
    last = len(plan.blocks) + 1
    is_added = added_in(model)
    names = [name for name, _ in model.named_parameters() if not is_added(name)]
    own = {name: _depth_in(owners, name) for name in names}
    behind = max((n for n, name in enumerate(names) if own[name] is not None), default=-1)
    depths, before = {}, 0
    for number, name in enumerate(names):
        before = before if own[name] is None else (own[name] or 0)
        in_head = any(_is_below(name, head) for head in heads)
        depths[name] = last if in_head or number > behind else before
    return depths


def _modules_of(block: Block) -> list[str]:
    """The modules that are a block: its own, or its layers where its place is the network."""
    return [block.path] if block.path else [_module_of(entry) for entry in block.entries]


def _module_of(reference: str) -> str:
    return reference.partition("#")[0].partition(":")[0]


def _depth_in(owners: dict[str, int], name: str) -> int | None:
    """The depth of the innermost of the modules that a parameter lies in."""
    parts = name.split(".")
    paths = [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
    return next((owners[path] for path in paths if path in owners), None)


def _is_below(name: str, path: str) -> bool:
    return bool(path) and name.startswith(path + ".")
