"""Design -> the `rla` module: everything the rewrite adds, in one named tree."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rlawrap._torch import ConvNd
from rlawrap.cells import Cell, Part, make_norm, published_weights
from rlawrap.config import RLAConfig
from rlawrap.copying import deep_copy
from rlawrap.design import names
from rlawrap.design.design import Design
from rlawrap.design.layers import Resize as ResizeLayer
from rlawrap.design.layers import named_activation, step_layers
from rlawrap.errors import ConfigError
from rlawrap.flow.geometry import Resize, Step
from rlawrap.plan import Plan
from rlawrap.splice.feature_info import FeatureInfos
from rlawrap.splice.record import Maps, Splice


class Hidden(nn.Module):
    """The tree at `model.rla`; the one place whose names are all ours, whatever the base has."""

    #: What was done to the network; set when the rewrite is whole.
    splice: Splice

    @property
    def plan(self) -> Plan:
        """The plan that was followed."""
        return self.splice.plan

    @property
    def config(self) -> RLAConfig:
        """The configuration of the recurrence."""
        return self.splice.config

    @property
    def blocks(self) -> list[str]:
        """Of a backbone: the paths of the blocks that make its maps."""
        return self.feature_info.module_name()

    @property
    def out_channels(self) -> list[int]:
        """Of a backbone: its maps' channels."""
        return self.feature_info.channels()

    @property
    def feature_info(self) -> FeatureInfos:
        """Of a backbone: its maps' names, blocks, channels and strides."""
        return _maps(self.splice).infos


def _maps(splice: Splice) -> Maps:
    if splice.maps is None:
        raise AttributeError("only a backbone has maps; rlawrap.backbone(model) makes one")
    return splice.maps


def build(design: Design) -> Hidden:
    """The module tree that lives at `model.rla`.

    Its names are those of `rlawrap.design.names`.
    """
    config, dims = design.config, design.dims
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    parts: dict[str, dict[str, nn.Module]] = {name: {} for name in names.PARTS}
    taken: dict[int, Part] = {}
    for step in design.steps:
        name = str(step.index)
        parts["out"][name] = nn.Identity()
        for entry in step.entries:
            parts["inject"][entry.name] = entry.path.build()
        for part, steps in (("pool", step.bring), ("down", step.down)):
            reads = step.updates if part == "down" else step.updates or step.entries
            if steps and reads:
                parts[part][name] = _sizer(steps)
        if not step.updates:
            continue
        if step.source_steps:
            parts["scale"][name] = _sizer(step.source_steps)
        if step.input_key not in parts["input"]:
            parts["input"][step.input_key] = conv(step.channels, config.k, 1, bias=False)
        if step.cell_key not in parts["cell"]:
            parts["cell"][step.cell_key] = _holder(design.cell, design.cell.shared(), taken)
        own = design.cell.own()
        if own:
            parts["block"][name] = _holder(design.cell, own, taken)
    rla = Hidden()
    for name, modules in parts.items():
        if modules:
            rla.add_module(name, nn.ModuleDict(modules))
    if design.head:
        rla.add_module("head", _head(design))
    return rla


def _holder(cell: Cell, parts: Mapping[str, Part], taken: dict[int, Part]) -> nn.ModuleDict:
    """A module of a cell's layers, parameters and buffers, none of which is in `taken`.

    A cell that hands out what it holds, more than once, gets a copy from the second time on: what
    blocks share is said by `RLAConfig.share` alone.
    """
    holder = nn.ModuleDict()
    for name, part in parts.items():
        own = deep_copy(part) if id(part) in taken else part
        taken[id(part)] = part
        try:
            if isinstance(own, nn.Parameter):
                holder.register_parameter(name, own)
            elif isinstance(own, Tensor):
                holder.register_buffer(name, own)
            else:
                holder.add_module(name, own)
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"the cell {type(cell).__name__}: {name!r} of its shared() or own() cannot be held "
                f"by a module ({error}); give layers and tensors, under other names."
            ) from error
    return holder


def _sizer(steps: list[Step]) -> nn.Module:
    for step in steps:
        if isinstance(step, Resize):
            return ResizeLayer(step.axes)
    layers = step_layers(steps)
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _head(design: Design) -> nn.Module:
    head = nn.Module()
    for key in dict.fromkeys(map(design.head_state, design.head)) if design.head_norm else ():
        norm = make_norm(design.config.norm, design.config.k, design.dims)
        head.add_module(names.head_norm(key).rpartition(".")[2], norm)
    if design.head_act != "none":
        head.add_module("act", named_activation(design.head_act))
    head.add_module("join", nn.ModuleDict({e.name: e.path.build() for e in design.head}))
    trained = {e.name: e.trained.build() for e in design.head if e.trained is not None}
    if trained:
        head.add_module("trained", nn.ModuleDict(trained))
    return head


def initialise(rla: nn.Module, design: Design, fan_in: dict[str, int]) -> None:
    """Weights as published: Kaiming-normal with fan out; with `init="identity"` injections are 0.

    The cells' own layers have their weights already. `fan_in` gives, for each linear layer that h
    joins, the features the classifier had before.
    """
    for path, module in rla.named_modules():
        if isinstance(module, ConvNd) and path.partition(".")[0] not in names.CELL_PARTS:
            published_weights(module.weight)
    for entry in design.head:
        last = last_layer(_at(rla, names.join(entry.name)))
        if isinstance(last, nn.Linear):
            bound = 1 / math.sqrt(last.in_features + fan_in.get(entry.target, 0))
            nn.init.uniform_(last.weight, -bound, bound)
    if design.config.init != "identity":
        return
    with torch.no_grad():
        for step in design.steps:
            for entry in step.entries:
                _zero(last_layer(_at(rla, names.inject(entry.name))))
        for entry in design.head:
            _zero(last_layer(_at(rla, names.join(entry.name))))


def _at(rla: nn.Module, path: str) -> nn.Module:
    return rla.get_submodule(path.removeprefix(f"{names.ROOT}."))


def _zero(layer: nn.Module) -> None:
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    weight.zero_()


def last_layer(path: nn.Module) -> nn.Module:
    """The convolution or linear layer at the end of a path."""
    layers = [m for m in path.modules() if isinstance(m, (ConvNd, nn.Linear))]
    return layers[-1]
