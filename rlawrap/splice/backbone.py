"""`backbone`: the feature maps of a rewritten network, by name, for detectors and decoders.

torchvision's IntermediateLayerGetter and `nn.Sequential(*model.children())` call the layers one
after the other and so lose the hidden state without a word; this cuts the graph instead.
"""

from __future__ import annotations

import copy
import difflib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from torch import nn

from rlawrap.design import names
from rlawrap.errors import PlanError
from rlawrap.plan import Plan
from rlawrap.splice.access import checked
from rlawrap.splice.classes import dress, make_class, plain_copy
from rlawrap.splice.cutting import Output, cut, prune
from rlawrap.splice.feature_info import FeatureInfos, measure
from rlawrap.splice.frozen import keep_still
from rlawrap.splice.frozen_stages import frozen_parts
from rlawrap.splice.guards import remove_guards
from rlawrap.splice.hook_points import hook_check, layer_check
from rlawrap.splice.mode_watch import ModeWatch
from rlawrap.splice.model import RLAModel
from rlawrap.splice.program import Program, cut_program, spared_layers
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

    @property
    def feature_info(self) -> FeatureInfos:
        """The maps' names, blocks, channels and strides; a timm base's own list is of all maps."""
        return self.rla.feature_info

    def __reduce__(self) -> Any:
        raise PlanError("a backbone is not pickled; save its state_dict() and make it again.")


def backbone(
    model: nn.Module,
    return_layers: Mapping[str, str] | Sequence[str] | None = None,
    *,
    out_indices: Sequence[int] | None = None,
    output: Output = "dict",
    frozen_stages: int = -1,
    norm_eval: bool = False,
) -> nn.Module:
    """A copy of a rewritten network that returns feature maps, with h running inside.

    `return_layers` maps block paths or path prefixes (`"layer1"`: its last block) to the names of
    the outputs, as torchvision's getters do; a list names them "0", "1", …; `out_indices` are
    numbers of stages of the plan instead, -1 the last. Without either the last block of every stage
    is returned. `output` says as what: "dict" an OrderedDict, as torchvision's detectors read,
    "list" as timm's, "tuple" as MMDetection's. `feature_info` holds the maps' channels and strides,
    measured.

    frozen_stages: as in MMDetection, 0 freezes the stem, n the first n stages too, with h's path
    through them: no gradient, and norms that stay in eval mode in `train()`; -1 freezes nothing.
    norm_eval: all batch norms stay in eval mode in `train()`, those of h as well.

    Layers behind the last map, the classifier, and updates of h that nothing reads any more are
    left out, so that every parameter gets a gradient. Keys of the state dict are those of the
    model. Raises `PlanError` for a path or a stage that is not there.

    >>> import torch, rlawrap, torchvision
    >>> model = rlawrap.apply(torchvision.models.resnet18(weights=None), k=8)
    >>> maps = rlawrap.backbone(model, {"layer2": "c3", "layer4": "c5"})
    >>> {name: tuple(m.shape[1:]) for name, m in maps(torch.randn(1, 3, 64, 64)).items()}
    {'c3': (128, 8, 8), 'c5': (512, 2, 2)}
    >>> maps.feature_info.channels(), maps.feature_info.reduction()
    ([128, 512], [8, 32])
    """
    rla_model = checked(model, "backbone(model)")
    wanted = _wanted(rla_model, return_layers, out_indices)
    if output not in ("dict", "list", "tuple"):
        raise PlanError(f"backbone: output={output!r}; one of 'dict', 'list', 'tuple'.")
    twin = copy.deepcopy(rla_model)
    programs = _cut_programs(twin, wanted, output)
    graphs = [program.graph for program in programs.values()]
    watched = {path for asked in twin.rla.splice.watch.modes.values() for path in asked}
    uncut = _uncut(twin)
    # What hook points name is a module's whole call, of which no layer may be left to call.
    prune(twin, [*graphs, *(program.hooked_graph for program in programs.values())], watched)
    plan = twin.rla.splice.plan
    frozen = frozen_parts(twin, plan, graphs, frozen_stages, norm_eval)
    made = _dressed(twin, programs, Maps(FeatureInfos(()), uncut, frozen.modules))
    paths = [plan.blocks[index].path for index in wanted.values()]
    infos = measure(made, plan.input_shape, wanted, paths, twin.rla.splice.settings.example_input)
    made.rla.splice.maps = Maps(infos, uncut, frozen.modules)
    parameters = dict(made.named_parameters(remove_duplicate=False))
    for name in frozen.parameters:
        parameters[name].requires_grad_(False)
    keep_still(made)
    return made


def _cut_programs(twin: RLAModel, wanted: Mapping[str, int], output: Output) -> dict[bool, Program]:
    """By mode what computes the maps; one program may serve both."""
    targets = {name: names.output(index) for name, index in wanted.items()}
    before = twin.rla.splice.programs
    modules = dict(twin.named_modules(remove_duplicate=False))
    cuts = {
        id(program): cut_program(program, lambda graph: cut(graph, targets, twin, output), modules)
        for program in before.values()
    }
    return {mode: cuts[id(program)] for mode, program in before.items()}


def _dressed(twin: RLAModel, programs: Mapping[bool, Program], maps: Maps) -> Backbone:
    """The copy with what is left of its modules, as a backbone."""
    before = twin.rla.splice
    left = dict(twin.named_modules(remove_duplicate=False))
    remove_guards(twin)
    guarded = tuple(path for path in before.guarded if path in left)
    points = dict.fromkeys(point.path for p in programs.values() for point in p.points)
    twin.rla.splice = replace(
        before,
        programs=programs,
        has_hooks=hook_check(points, set(guarded)),
        is_changed=layer_check(spared_layers(programs), set(guarded)),
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
    model: RLAModel,
    return_layers: Mapping[str, str] | Sequence[str] | None,
    out_indices: Sequence[int] | None,
) -> OrderedDict[str, int]:
    """Names of the outputs and the index of the block that makes each."""
    plan = model.rla.plan
    if return_layers is None:
        return OrderedDict((str(i), end) for i, end in enumerate(_ends(plan, out_indices)))
    if out_indices is not None:
        raise PlanError("backbone: give return_layers= or out_indices=, not both.")
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
            raise PlanError(_no_block(plan, path))
        found[str(name)] = hits[-1]
    if not found:
        raise PlanError("backbone: return_layers= is empty; leave it out for one map a stage.")
    return found


def _ends(plan: Plan, out_indices: Sequence[int] | None) -> list[int]:
    """The last block of each stage that is asked for."""
    ends = list(accumulate(len(stage.blocks) for stage in plan.stages))
    if out_indices is None:
        return [end - 1 for end in ends]
    asked = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    for index in asked:
        if not isinstance(index, int) or not -len(ends) <= index < len(ends):
            raise PlanError(
                f"backbone: out_indices={asked}: {plan.model} has {len(ends)} stages, 0 to "
                f"{len(ends) - 1}; {index!r} is none. Leave `out_indices=None` for all of them."
            )
    if not asked:
        raise PlanError("backbone: out_indices= is empty; leave it out for one map a stage.")
    return [ends[index] - 1 for index in asked]


def _no_block(plan: Plan, path: Any) -> str:
    paths = [block.path for block in plan.blocks]
    holders = {p.rpartition(".")[0] for p in paths} - {""}
    near = difflib.get_close_matches(str(path), [*sorted(holders), *paths], n=3)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    return f"backbone: {path!r} names no block of {plan.model};{hint} The blocks are {paths}."
