"""`backbone`: the feature maps of a rewritten network, by name, for detectors and decoders.

torchvision's IntermediateLayerGetter and `nn.Sequential(*model.children())` call the layers one
after the other and so lose the hidden state without a word; this cuts the graph instead.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import fx, nn

from rlawrap.capture.overwrites import writes_in_place
from rlawrap.design import names
from rlawrap.errors import PlanError
from rlawrap.splice.access import checked
from rlawrap.splice.classes import dress, make_class, plain_copy
from rlawrap.splice.guards import remove_guards
from rlawrap.splice.hook_points import hook_check
from rlawrap.splice.mode_watch import ModeWatch
from rlawrap.splice.model import RLAModel
from rlawrap.splice.program import cut_program
from rlawrap.splice.record import Maps


class Backbone(RLAModel):
    """Feature maps by name, x alone, h inside; `out_channels` and `blocks` list them in order.

    Where the base has something of that name (timm's networks have `blocks`), it keeps it; both
    lists are at `rla.out_channels` and `rla.blocks` in any case.
    """

    out_channels: list[int]
    blocks: list[str]
    #: Further names that `rla` has and the model shows.
    shown = ("out_channels", "blocks")

    def __reduce__(self) -> Any:
        raise PlanError("a backbone is not pickled; save its state_dict() and make it again.")


def backbone(
    model: nn.Module, return_layers: Mapping[str, str] | Sequence[str] | None = None
) -> nn.Module:
    """A copy of a rewritten network that returns an OrderedDict of feature maps.

    `return_layers` maps block paths or path prefixes (`"layer1"`: its last block) to the names of
    the outputs, as torchvision's getters do; a list names them "0", "1", …; without it the last
    block of every stage is returned. Layers behind the last map, the classifier, and updates of h
    that nothing reads any more are left out, so that every parameter gets a gradient. Keys of the
    state dict are those of the model. Raises `PlanError` for a path that names no block.

    >>> import torch, rlawrap, torchvision
    >>> model = rlawrap.apply(torchvision.models.resnet18(weights=None), k=8)
    >>> maps = rlawrap.backbone(model, {"layer2": "c3", "layer4": "c5"})(torch.randn(1, 3, 64, 64))
    >>> {name: tuple(m.shape[1:]) for name, m in maps.items()}
    {'c3': (128, 8, 8), 'c5': (512, 2, 2)}
    """
    rla_model = checked(model, "backbone(model)")
    wanted = _wanted(rla_model, return_layers)
    twin = copy.deepcopy(rla_model)
    before = twin.rla.splice
    targets = {name: names.output(index) for name, index in wanted.items()}
    cut = {
        id(p): cut_program(p, lambda graph: _cut(graph, targets, twin))
        for p in before.programs.values()
    }
    programs = {mode: cut[id(p)] for mode, p in before.programs.items()}
    blocks = before.plan.blocks
    maps = Maps(
        [blocks[i].path for i in wanted.values()],
        [int(blocks[i].channels or 0) for i in wanted.values()],
        _uncut(twin),
    )
    watched = {path for asked in before.watch.modes.values() for path in asked}
    _prune(twin, [p.graph for p in programs.values()], watched)
    left = dict(twin.named_modules(remove_duplicate=False))
    remove_guards(twin)
    guarded = tuple(path for path in before.guarded if path in left)
    points = dict.fromkeys(point.path for p in programs.values() for point in p.points)
    twin.rla.splice = replace(
        before,
        programs=programs,
        has_hooks=hook_check(points, set(guarded)),
        watch=ModeWatch(before.watch.modes),
        guarded=guarded,
        checkpointing=False,
        maps=maps,
    )
    cls = make_class(Backbone, before.base_class, programs[False].plain, (), twin)
    made: Backbone = dress(twin, twin.rla, cls)
    if before.checkpointing:
        RLAModel.set_grad_checkpointing(made)
    return made


def _uncut(model: RLAModel) -> nn.Module | None:
    """The whole base without memory, where its own `train` or `eval` may name layers to be cut."""
    base = model.rla.splice.base_class
    if base.train is nn.Module.train and base.eval is nn.Module.eval:
        return None
    return plain_copy(model).to("meta")


def _wanted(
    model: RLAModel, return_layers: Mapping[str, str] | Sequence[str] | None
) -> OrderedDict[str, int]:
    """Names of the outputs and the index of the block that makes each."""
    plan = model.rla.plan
    if return_layers is None:
        last = -1
        ends = []
        for stage in plan.stages:
            last += len(stage.blocks)
            ends.append(last)
        return OrderedDict((str(i), end) for i, end in enumerate(ends))
    if isinstance(return_layers, str):
        return_layers = [return_layers]
    if not isinstance(return_layers, Mapping):
        return_layers = {path: str(i) for i, path in enumerate(return_layers)}
    found: OrderedDict[str, int] = OrderedDict()
    for path, name in return_layers.items():
        hits = [
            i
            for i, block in enumerate(plan.blocks)
            if block.path == path or block.path.startswith((f"{path}.", f"{path}["))
        ]
        if not hits:
            raise PlanError(
                f"backbone: {path!r} names no block of {plan.model}; the blocks are "
                f"{[b.path for b in plan.blocks]}."
            )
        found[str(name)] = hits[-1]
    if not found:
        raise PlanError("backbone: return_layers= is empty; leave it out for one map a stage.")
    return found


def _cut(graph: fx.Graph, targets: Mapping[str, str], model: nn.Module) -> None:
    """Let the graph return the named nodes, and drop what nothing reads any more."""
    modules = dict(model.named_modules(remove_duplicate=False))
    by_target = {str(n.target): n for n in graph.nodes if n.op == "call_module"}
    outputs = {name: by_target[target] for name, target in targets.items()}
    old = next(n for n in graph.nodes if n.op == "output")
    graph.erase_node(old)
    last = max(outputs.values())
    for node in reversed(list(graph.nodes)):
        behind = last < node
        # In front of the last map a value that nothing reads may still be a write to one that is.
        idle = not node.users and writes_in_place(modules.get(str(node.target)), node) is None
        if node.op != "placeholder" and node not in outputs.values() and (behind or idle):
            graph.erase_node(node)
    with graph.inserting_after(last):
        made = graph.call_function(OrderedDict, (list(outputs.items()),))
    graph.output(made)
    graph.lint()


def _prune(model: nn.Module, graphs: list[fx.Graph], watched: set[str]) -> None:
    """Delete the modules and parameters that the cut graphs no longer use.

    Of the modules that were traced through, those with a mode that matters stay.
    """
    used: set[str] = set()
    nodes = [node for graph in graphs for node in graph.nodes]
    for node in nodes:
        if node.op in ("call_module", "get_attr"):
            path = str(node.target)
            used.add(path)
            while path:
                path = path.rpartition(".")[0]
                used.add(path)
    used |= {path for path in watched if path.rpartition(".")[0] in used}
    called = {str(n.target) for n in nodes if n.op == "call_module"}
    _prune_children(model, "", used, called)


def _prune_children(module: nn.Module, prefix: str, used: set[str], called: set[str]) -> None:
    for name, child in list(module._modules.items()):
        path = f"{prefix}{name}"
        if path in called or child is None:
            continue
        if path not in used:
            del module._modules[name]
        else:
            _prune_children(child, f"{path}.", used, called)
    tensors: Any = (module._parameters, module._buffers)
    for table in tensors:
        for name, value in list(table.items()):
            if value is not None and f"{prefix}{name}" not in used:
                del table[name]
